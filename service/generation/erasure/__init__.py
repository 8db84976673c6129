"""Erases users from the files of generated lists."""
