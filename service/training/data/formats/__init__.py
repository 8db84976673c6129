"""The readers of data formats, one file per format."""
