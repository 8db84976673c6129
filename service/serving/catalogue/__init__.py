"""The item catalogue of a replica, kept at the last changes, and its search."""
