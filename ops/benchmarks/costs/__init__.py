"""Benchmarks of the processor time that one part costs."""
