"""Search in the item catalogue, by words and by likeness."""
