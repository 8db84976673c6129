"""Starts, watches and restarts the parts of an installation."""
