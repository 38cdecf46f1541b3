"""Networks: callables `network(x, noise_level, covariates)` on any event shape."""
