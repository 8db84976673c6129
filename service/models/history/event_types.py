"""The types of interactions. Settings import this file, so that it loads no numerical library."""

from typing import Final

EVENT_TYPES: Final = ("rating", "purchase", "click", "view", "dismiss")
"""The types by their number, as histories have it."""
RATING, PURCHASE, CLICK, VIEW, DISMISS = range(len(EVENT_TYPES))
