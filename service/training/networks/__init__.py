"""Networks, one file each, with a line in the registry of algorithms."""
