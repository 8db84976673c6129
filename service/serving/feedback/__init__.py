"""Feedback from clients: its events, and the idempotency keys of its requests."""
