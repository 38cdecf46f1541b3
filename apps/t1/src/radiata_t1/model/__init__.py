"""Networks, weights and samplers of T1 generation."""
