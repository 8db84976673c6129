"""Nearest neighbours: the search, and the lists that are kept."""
