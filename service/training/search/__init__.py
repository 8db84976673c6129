"""Hyperparameter search: the space, the choice of the next trial, the worker processes and the result."""
