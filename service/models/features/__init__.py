"""Attributes of users and items as categories, computed alike in training and in serving."""
