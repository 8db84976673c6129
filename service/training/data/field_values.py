"""The values of fields: ids, ratings and times, from text or from typed values (pure).

A `parse_` function returns the value of a text, or None if the text is invalid.
"""

import math
import re
import unicodedata
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, Literal, TypeAlias

import numpy as np
import orjson
from numpy.typing import NDArray

ID_LIMIT: Final = 128
# The null of PostgreSQL's COPY.
NULL: Final = "\\N"
_FLOAT32_LIMIT: Final = float(np.finfo(np.float32).max)
# Larger floats do not represent every whole number, so that two ids could become one.
_EXACT_FLOATS: Final = 1 << 53
# 0001-01-01 to 9999-12-31, the range of datetime.
FIRST_S: Final = -62_135_596_800
LAST_S: Final = 253_402_300_799
NO_TIME: Final = np.iinfo(np.int64).min
# Numbers of at least this size are nanoseconds, microseconds or milliseconds: in seconds they are after the year 5138.
_UNITS: Final = ((10**17, 10**9), (10**14, 10**6), (10**11, 10**3))
# Without a header, a third column of numbers from 100 million on (1973 as a time) holds times, not ratings.
_LEAST_OBVIOUS_TIME_S: Final = 10**8
_DECIMAL_COMMA: Final = re.compile(r"[+-]?[0-9]+,[0-9]+")
_SLASHED: Final = re.compile(
    r"(?P<first>[0-9]{1,2})(?P<sign>[./-])(?P<second>[0-9]{1,2})(?P=sign)(?P<year>[0-9]{4})"
    r"(?:,?[ T](?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2})(?::(?P<s>[0-9]{2})(?:[.,][0-9]+)?)?"
    r"(?: ?(?P<half>[AaPp])[Mm])?)?"
)
# BigQuery ("… UTC"), Go ("… +0000 UTC") and several logs write the offset from UTC after a time.
_UTC_WORD: Final = re.compile(r" ?(?:UTC|GMT)")
# A date that begins with the year has one order only, with any separator.
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
    if "_" in text:  # Python's own notation, which data does not use
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and abs(number) <= _FLOAT32_LIMIT else None


def has_decimal_comma(text: str) -> bool:
    """Return whether a text is a number with a comma before its decimals."""
    return _DECIMAL_COMMA.fullmatch(text.strip()) is not None


def parse_time(text: str, dates: Dates = "iso") -> int | None:
    """Return unix seconds, rounded down, of a number (seconds, or ms, µs, ns by its size) or of a time as text.

    A time without an offset is UTC.

    Args:
        text: The field.
        dates: "iso" reads ISO 8601 alone; the others also dates such as 01/02/2021 10:30, in their order.
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
    """Return whether a text is a date such as 01/02/2021, whose order of day and month is ambiguous."""
    return _SLASHED.fullmatch(text.strip()) is not None


def _moment(text: str, dates: Dates) -> datetime:
    match = None if dates == "iso" else _SLASHED.fullmatch(text)
    if match is None:
        return _iso_moment(text)
    first, second, year = (int(match[name]) for name in ("first", "second", "year"))
    day, month = (first, second) if dates == "day-first" else (second, first)
    hour = int(match["hour"] or 0)
    if match["half"]:
        if not 1 <= hour <= 12:
            raise ValueError(text)
        hour = hour % 12 + (12 if match["half"].lower() == "p" else 0)
    return datetime(year, month, day, hour, int(match["minute"] or 0), int(match["s"] or 0), tzinfo=UTC)


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
    """Convert whole numbers as `parse_time` does: unix seconds, int64 (n,); `NO_TIME` for None."""
    seconds = numbers.copy()
    for least, unit in reversed(_UNITS):
        # Compared on both sides, because the absolute value of the least int64 is not an int64.
        large = (numbers >= least) | (numbers <= -least)
        if large.any():
            seconds[large] = numbers[large] // unit
    seconds[(seconds < FIRST_S) | (seconds > LAST_S)] = NO_TIME
    return seconds


def looks_like_time(text: str) -> bool:
    """Return whether a field can only be a time, not a rating."""
    number = parse_number(text)
    if number is None:
        return parse_time(text) is not None
    return number >= _LEAST_OBVIOUS_TIME_S


def id_text(value: object) -> str | None:
    """Return the text of an id from JSON or Parquet: 42, 42.0 and "42" are the same id.

    Returns:
        The text, empty for None; None if the value is neither a text nor a whole number.
    """
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT_FLOATS:
        return str(int(value))
    if isinstance(value, Decimal) and value == value.to_integral_value():
        return str(int(value))
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return None
    return None


def number_text(value: object) -> str:
    """Return the text of a rating or time from JSON; other values as JSON."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return repr(value)
    return orjson.dumps(value).decode()


def printable(text: str) -> str:
    """Return an external text with everything that is not printable escaped."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def quoted(text: str) -> str:
    """Return an external text in quotes, abbreviated, for a sentence."""
    return repr(text if len(text) <= 40 else f"{text[:40]}…")
