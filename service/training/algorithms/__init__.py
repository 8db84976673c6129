"""One file per algorithm, or per family of them: a Config, a fit() and an entry in `ALGORITHMS`."""
