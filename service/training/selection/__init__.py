"""The choice of `auto`: which algorithm makes the best lists of a data set, measured within a time budget."""
