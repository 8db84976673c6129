"""Benchmarks against public libraries."""
