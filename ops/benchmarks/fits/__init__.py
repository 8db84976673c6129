"""Benchmarks of fits: with workers, in groups, on data of growing size, and with new items."""
