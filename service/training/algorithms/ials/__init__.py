"""The algorithm `ials`."""
