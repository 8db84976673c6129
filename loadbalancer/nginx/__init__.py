"""The configuration of nginx, as a value and as files."""
