"""radiata-t1: 3-D non-latent T1 brain MRI generation."""
