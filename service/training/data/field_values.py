"""What the fields of a row may hold: ids, ratings and times (pure).

Each `parse_` function takes a field as written and returns its value, or None where the row is bad.
"""

import math
import re
import unicodedata
from datetime import UTC, datetime
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

ID_LIMIT: Final = 128
# How PostgreSQL's COPY writes a null.
NULL: Final = "\\N"
_FLOAT32_LIMIT: Final = float(np.finfo(np.float32).max)
# 0001-01-01 to 9999-12-31, what datetime can hold.
FIRST_S: Final = -62_135_596_800
LAST_S: Final = 253_402_300_799
NO_TIME: Final = np.iinfo(np.int64).min
# A number of this size or more counts in milliseconds, microseconds or nanoseconds: in seconds that is the year 5138.
_UNITS: Final = ((10**17, 10**9), (10**14, 10**6), (10**11, 10**3))
# A headerless third column of such numbers holds times: nobody rates with 100 million (1973 as a time).
_LEAST_OBVIOUS_TIME_S: Final = 10**8
_DECIMAL_COMMA: Final = re.compile(r"[+-]?[0-9]+,[0-9]+")
_SLASHED: Final = re.compile(
    r"(?P<first>[0-9]{1,2})(?P<sign>[./-])(?P<second>[0-9]{1,2})(?P=sign)(?P<year>[0-9]{4})"
    r"(?:,?[ T](?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2})(?::(?P<s>[0-9]{2})(?:[.,][0-9]+)?)?"
    r"(?: ?(?P<half>[AaPp])[Mm])?)?"
)
# How BigQuery ("… UTC"), Go ("… +0000 UTC") and several logs write the offset from UTC behind a time.
_UTC_WORD: Final = re.compile(r" ?(?:UTC|GMT)")
# A date that begins with the year has one order only, whatever stands between.
_YEAR_FIRST: Final = re.compile(r"([0-9]{4})([/.])([0-9]{1,2})\2([0-9]{1,2})(?=[ T]|$)")
_OFFSET_APART: Final = re.compile(r" (?=[+-][0-9]{2}:?[0-9]{2}$)")
Dates: TypeAlias = Literal["iso", "day-first", "month-first"]


def parse_id(text: str) -> str | None:
    """Return an id without surrounding blanks: 1 to 128 characters, none of them a control character."""
    id_ = text.strip()
    if not 1 <= len(id_) <= ID_LIMIT or id_ == NULL:
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


def has_decimal_comma(text: str) -> bool:
    """Tell whether a text is a number with a comma before its decimals."""
    return _DECIMAL_COMMA.fullmatch(text.strip()) is not None


def parse_time(text: str, dates: Dates = "iso") -> int | None:
    """Return unix seconds, rounded down, for a number (seconds, or ms, µs, ns by its size) or a time as text.

    A time without an offset is taken as UTC.

    Args:
        text: The field.
        dates: "iso" reads ISO 8601 alone; the others also dates such as 01/02/2021 10:30, in the order that they name.
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
            moment = _moment(text.strip(), dates)
            seconds = math.floor((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
        except (ValueError, OverflowError):
            return None
    return seconds if FIRST_S <= seconds <= LAST_S else None


def is_slashed_date(text: str) -> bool:
    """Tell whether a text is a date such as 01/02/2021, whose order of day and month cannot be known from it."""
    return _SLASHED.fullmatch(text.strip()) is not None


def _moment(text: str, dates: Dates) -> datetime:
    found = None if dates == "iso" else _SLASHED.fullmatch(text)
    if found is None:
        return _iso_moment(text)
    first, second, year = (int(found[name]) for name in ("first", "second", "year"))
    day, month = (first, second) if dates == "day-first" else (second, first)
    hour = int(found["hour"] or 0)
    if found["half"]:
        if not 1 <= hour <= 12:
            raise ValueError(text)
        hour = hour % 12 + (12 if found["half"].lower() == "p" else 0)
    return datetime(year, month, day, hour, int(found["minute"] or 0), int(found["s"] or 0), tzinfo=UTC)


def _iso_moment(text: str) -> datetime:
    if date := _YEAR_FIRST.match(text):
        text = f"{date[1]}-{int(date[3]):02d}-{int(date[4]):02d}{text[date.end() :]}"
    word = _UTC_WORD.search(text, len(text) - 4)
    if word is None or word.end() != len(text):
        return datetime.fromisoformat(_OFFSET_APART.sub("", text))
    moment = datetime.fromisoformat(_OFFSET_APART.sub("", text[: word.start()]))
    if moment.tzinfo is None:
        return moment.replace(tzinfo=UTC)
    if moment.utcoffset():
        raise ValueError(text)
    return moment


def to_seconds(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Do as `parse_time` for many whole numbers at once.

    Args:
        numbers: Int64 (n,); not changed.

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


def printable(text: str) -> str:
    """Return a text from outside as it may be printed and stored: what is not printable is escaped."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def looks_like_time(text: str) -> bool:
    """Tell whether a field can only be a time, not a rating."""
    number = parse_number(text)
    if number is None:
        return parse_time(text) is not None
    return number >= _LEAST_OBVIOUS_TIME_S
