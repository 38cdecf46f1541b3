"""What joins models and data: training, scoring, tables."""
