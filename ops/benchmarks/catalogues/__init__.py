"""Benchmarks of large catalogues: the item index, searches, and lists in bulk."""
