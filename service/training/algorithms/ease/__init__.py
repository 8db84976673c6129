"""The algorithm `ease`."""
