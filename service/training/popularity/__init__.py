"""Popular items: counts, their half-life, and the popular items of clusters of users."""
