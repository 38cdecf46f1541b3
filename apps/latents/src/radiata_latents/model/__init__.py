"""Models of populations: tensors in, expected counts per bin out."""
