"""Scores of a model, and the best items by them."""
