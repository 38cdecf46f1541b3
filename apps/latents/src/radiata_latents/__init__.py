"""Langevin-flow latent dynamics of neural populations. So far: the data layer (`radiata_latents.data`)."""
