"""Reads data, fits models, measures them and publishes them: minutes to hours, never on the request path."""
