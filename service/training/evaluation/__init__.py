"""Evaluation: splits of a dataset, measures, their uncertainty, and the comparison of algorithms."""
