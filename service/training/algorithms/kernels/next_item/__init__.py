"""Statistics of which items follow which, and the regressions from them."""
