"""Erases users from an archive."""
