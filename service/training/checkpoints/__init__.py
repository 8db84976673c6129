"""Checkpoints: the state of a fit on disk, from which it continues after its process was killed."""
