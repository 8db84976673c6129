"""Compiled inner loops and tables shared by algorithms."""
