"""The algorithm `softmax`."""
