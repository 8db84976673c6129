"""Networks of two towers: their layers, their hyperparameters, their ranker, and the model made of them."""
