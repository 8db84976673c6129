"""Lists from the files of an installation, without a running service."""
