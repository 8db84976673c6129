"""Factors learnt from ratings by gradient descent: the order of steps, the steps, and the loop over epochs."""
