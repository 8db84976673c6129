"""Decides what to recommend: HTTP, the model store, scoring and training."""
