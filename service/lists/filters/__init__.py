"""Filters: a grammar, expression trees, and masks of the items that match."""
