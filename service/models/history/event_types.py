"""The types of interactions. Settings name them, so that this file loads no numerical library."""

from typing import Final

EVENT_TYPES: Final = ("rating", "purchase", "click", "view", "dismiss")
"""Histories hold indices in it."""
RATING, PURCHASE, CLICK, VIEW, DISMISS = range(len(EVENT_TYPES))
