"""The approximate index of a large catalogue's items."""
