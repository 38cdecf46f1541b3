"""Segmentation and restoration of medical images and volumes with generative priors. Not for clinical use."""
