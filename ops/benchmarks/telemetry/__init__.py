"""Benchmarks of the telemetry path."""
