"""One file an algorithm: a Config and a fit()."""
