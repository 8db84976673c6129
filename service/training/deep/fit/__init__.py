"""One fit of a network: the training loop, its hyperparameters, its objective and its surroundings."""
