"""Readers of the formats that data comes in, one file a format."""
