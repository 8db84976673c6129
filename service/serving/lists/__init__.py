"""Lists from a request to their answer."""
