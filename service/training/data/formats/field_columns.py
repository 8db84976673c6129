"""Parses Arrow columns of ids, ratings and times, and explains bad rows (pure).

Each distinct value is parsed once: columns are dictionary-encoded first.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from service.training.data.field_values import (
    ID_LIMIT,
    NO_TIME,
    NULL,
    Dates,
    has_decimal_comma,
    is_slashed_date,
    parse_id,
    parse_number,
    parse_time,
    quoted,
    to_seconds,
)
from service.training.data.row_collector import RowBatch, RowCollector
from service.training.interactions import Float32, Int32, Int64

_INVALID_ID: Final = f"is not of 1 to {ID_LIMIT} characters without control characters"
_INVALID_NUMBER: Final = "is not a finite number"
_INVALID_TIME: Final = "is neither unix time nor ISO 8601"


def parse_texts(
    texts: tuple[pa.Array | None, ...], collector: RowCollector, *, decimal_comma: bool, dates: Dates
) -> RowBatch:
    """Parse columns of texts without nulls.

    Args:
        texts: User ids, item ids, ratings and times; None for a column that the source lacks.
        collector: Has the codes of ids.
        decimal_comma: Whether ratings have a comma before their decimals.
        dates: The order of day and month, see `parse_time`.
    """
    user, item, rating, timestamp = texts
    if rating is not None and decimal_comma:
        rating = with_decimal_points(rating)
    return RowBatch(
        users=encode_ids(user, collector.users),
        items=encode_ids(item, collector.items),
        ratings=None if rating is None else to_ratings(rating),
        timestamps=None if timestamp is None else to_times(timestamp, dates),
    )


def encode_ids(column: pa.Array, ids: dict[str, int], to_id: Callable[[Any], str | None] = parse_id) -> Int32:
    """Return each value's code, int32 (n,); -1 if it is no id.

    Args:
        column: Values of any type that Arrow can dictionary-encode.
        ids: The code of each id so far; new ids are added.
        to_id: Returns the id of a value, where None is a missing one; None if it is no id.
    """
    encoded = pc.dictionary_encode(column, null_encoding="encode")
    code_of: Int32 = np.fromiter(
        (
            -1 if (id_ := to_id(value)) is None else ids.setdefault(id_, len(ids))
            for value in encoded.dictionary.to_pylist()
        ),
        dtype=np.int32,
    )
    codes: Int32 = code_of[encoded.indices.to_numpy()]
    return codes


def to_ratings(texts: pa.Array) -> Float32:
    """Return the ratings of texts without nulls, float32 (n,); NaN if invalid."""
    encoded = pc.dictionary_encode(texts)
    values = (parse_number(text) for text in encoded.dictionary.to_pylist())
    rating_of: Float32 = np.fromiter((np.nan if value is None else value for value in values), dtype=np.float32)
    ratings: Float32 = rating_of[encoded.indices.to_numpy()]
    return ratings


def to_times(texts: pa.Array, dates: Dates = "iso") -> Int64:
    """Return the times of texts without nulls, int64 (n,), unix seconds; `NO_TIME` if invalid.

    Args:
        texts: The fields.
        dates: The order of day and month, see `parse_time`.
    """
    try:
        return to_seconds(pc.cast(texts, pa.int64()).to_numpy())
    except pa.ArrowInvalid:  # not all of them are plain whole numbers
        encoded = pc.dictionary_encode(texts)
        values = (parse_time(text, dates) for text in encoded.dictionary.to_pylist())
        time_of: Int64 = np.fromiter((NO_TIME if value is None else value for value in values), dtype=np.int64)
        times: Int64 = time_of[encoded.indices.to_numpy()]
        return times


def with_decimal_points(texts: pa.Array) -> pa.Array:
    """Return texts with the decimal comma of each number replaced by a point."""
    return pc.replace_substring_regex(texts, r"^(\s*[+-]?[0-9]+),([0-9]+\s*)$", r"\1.\2")


def bad_row_reason(fields: tuple[str | None, ...], dates: Dates = "iso") -> str:
    """Return why a row is bad.

    Args:
        fields: User id, item id, rating and timestamp as text; None for a column that the source lacks.
        dates: The order of day and month, see `parse_time`.
    """
    user, item, rating, timestamp = fields
    checks = (
        ("user id", user, parse_id, _INVALID_ID),
        ("item id", item, parse_id, _INVALID_ID),
        ("rating", rating, parse_number, _INVALID_NUMBER),
        ("timestamp", timestamp, lambda text: parse_time(text, dates), _INVALID_TIME),
    )
    for role, value, parse, complaint in checks:
        if value is not None and parse(value) is None:
            if value.strip() in {"", NULL}:
                return f"the {role} is empty"
            return f"the {role} {quoted(value)} {complaint}{_option_hint(role, value, dates)}"
    raise AssertionError("A row was rejected without a reason.")


def _option_hint(role: str, value: str, dates: Dates) -> str:
    """Return the option that would read a field, if there is one."""
    if role == "timestamp" and dates == "iso" and is_slashed_date(value):
        return "; --dates day-first or --dates month-first reads it"
    if role == "rating" and has_decimal_comma(value):
        return "; --decimal comma reads it, with the comma before its decimals"
    if role == "rating" and value.strip().lower() in {"true", "false", "yes", "no"}:
        return "; write 1 and 0, or leave the column out with --columns rating="
    return ""
