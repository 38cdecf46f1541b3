"""Weights that ship with the package; see the model card beside them."""
