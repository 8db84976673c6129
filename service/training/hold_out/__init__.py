"""The interactions that a training holds out, and the measures of models on them."""
