"""Reading interactions: requests, sources, files, formats and the merged dataset."""
