"""fMRI to image and to motion, and back: decoding and encoding of visual cortex, with generative priors and controls."""
