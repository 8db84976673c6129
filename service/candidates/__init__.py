"""Candidates found by another service: what is asked of it, how, and what a list is made from without it."""
