"""Looks for the settings of an algorithm that measure best: what to try, who tries it, and what came of it."""
