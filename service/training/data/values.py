"""What the fields of a row may hold: ids, ratings and times (pure).

Each `parse_` function takes a field as written and returns its value, or None where the row is bad.
"""

from __future__ import annotations

import math
import unicodedata
from datetime import UTC, datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray

ID_LIMIT: Final = 128
_FLOAT32_LIMIT: Final = float(np.finfo(np.float32).max)
# 0001-01-01 to 9999-12-31, what datetime can hold.
FIRST_S: Final = -62_135_596_800
LAST_S: Final = 253_402_300_799
NO_TIME: Final = np.iinfo(np.int64).min
# A number of this size or more counts in milliseconds, microseconds or nanoseconds: in seconds that is the year 5138.
_UNITS: Final = ((10**17, 10**9), (10**14, 10**6), (10**11, 10**3))
# A headerless third column of such numbers holds times: nobody rates with 100 million (1973 as a time).
_LEAST_OBVIOUS_TIME_S: Final = 10**8


def parse_id(text: str) -> str | None:
    """Return an id without surrounding blanks: 1 to 128 characters, none of them a control character."""
    id_ = text.strip()
    if not 1 <= len(id_) <= ID_LIMIT:
        return None
    if not id_.isprintable() and any(unicodedata.category(c) in {"Cc", "Cs"} for c in id_):
        return None
    return id_


def parse_number(text: str) -> float | None:
    """Return a rating, finite as float32."""
    if "_" in text:  # Python's own notation, nobody's data
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and abs(number) <= _FLOAT32_LIMIT else None


def parse_time(text: str) -> int | None:
    """Return unix seconds, rounded down, for a number (seconds, or ms, µs, ns by its size) or an ISO 8601 time.

    A time without an offset is taken as UTC.
    """
    number = parse_number(text)
    if number is not None:
        try:
            whole = int(text)
        except ValueError:
            whole = math.floor(number)
        seconds = next((whole // unit for least, unit in _UNITS if abs(whole) >= least), whole)
    else:
        try:
            moment = datetime.fromisoformat(text.strip())
            seconds = math.floor((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
        except (ValueError, OverflowError):
            return None
    return seconds if FIRST_S <= seconds <= LAST_S else None


def seconds_of(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Do as `parse_time` for many whole numbers at once.

    Args:
        numbers: int64 (n,); not changed.

    Returns:
        int64 (n,), unix seconds; NO_TIME where `parse_time` would return None.
    """
    seconds = numbers.copy()
    for least, unit in reversed(_UNITS):
        # Compared on both sides: the absolute value of the least int64 is not an int64.
        large = (numbers >= least) | (numbers <= -least)
        if large.any():
            seconds[large] = numbers[large] // unit
    seconds[(seconds < FIRST_S) | (seconds > LAST_S)] = NO_TIME
    return seconds


def shown(text: str) -> str:
    """Return a text from outside as it may be printed and stored: what is not printable is escaped."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def looks_like_time(text: str) -> bool:
    """Tell whether a field can only be a time, not a rating."""
    number = parse_number(text)
    if number is None:
        return parse_time(text) is not None
    return number >= _LEAST_OBVIOUS_TIME_S
