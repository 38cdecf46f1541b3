"""Decoders, encoders, generators and the statistics that judge them; no file formats."""
