"""Benchmarks of whole installations under load, overload and faults."""
