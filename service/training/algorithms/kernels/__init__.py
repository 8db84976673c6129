"""Inner loops and tables that several algorithms share."""
