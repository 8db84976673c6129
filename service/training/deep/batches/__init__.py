"""Training data as inputs of networks, by the batch."""
