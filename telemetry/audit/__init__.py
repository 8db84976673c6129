"""Reconciles what producers accepted with what the archive holds."""
