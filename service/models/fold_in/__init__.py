"""Fold-in: the representation of a user from their interactions, without another training."""
