"""Rankings for lists: those of one turn of the event loop together, kept ones, and the level that a deadline leaves."""
