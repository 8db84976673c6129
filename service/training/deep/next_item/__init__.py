"""The task of networks that rank: to predict the next item of a user."""
