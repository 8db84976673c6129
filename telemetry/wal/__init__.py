"""The write-ahead log of one producer: ring, segments and the slot that holds them."""
