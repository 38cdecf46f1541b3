"""Spikes from files and generators to one validated `xarray.Dataset` of trials, times and neurons."""
