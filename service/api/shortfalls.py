"""What a shortfall says."""

from typing import Final

from service.api.wire import Shortfall, ShortfallCode

_REASONS: Final[dict[ShortfallCode, str]] = {
    "catalogue": "The catalogue holds no more items.",
    "seen": "The user has seen all other items.",
    "filter": "No other item matches the filter.",
    "include": "The request includes no other item.",
    "exclude": "The request excludes all other items.",
    "hidden": "All other items are hidden or not available now.",
    "pages": "The pages before hold all other items.",
    "neighbours": "No other item has a user in common with this one.",
}


def shortfall(requested: int, returned: int, code: ShortfallCode | None) -> Shortfall | None:
    """Return why a list is shorter than requested, or None if it is not."""
    if returned == requested or code is None:
        return None
    return {"requested": requested, "returned": returned, "code": code, "reason": _REASONS[code]}
