"""The algorithm `bayesian_mf`."""
