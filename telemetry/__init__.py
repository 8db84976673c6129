"""Knows events, never recommendations: how they are taken in, shipped, archived and counted."""
