"""The live half of a user: what happened since training, merged with the training history and folded in."""
