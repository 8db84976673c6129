"""The comparison of a new model with the active one, and the decision whether it becomes active."""
