"""The algorithm `next_item`."""
