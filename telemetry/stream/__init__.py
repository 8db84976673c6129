"""The streams in Redis between producers and the consumer."""
