"""Priors, restorers, segmenters and what is made of their output."""
