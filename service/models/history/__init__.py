"""The interactions of users: their types, values and weights."""
