"""Values that come with a type, as JSON and Parquet have them, as the texts that they would be in a table (pure)."""

from decimal import Decimal
from typing import Final

import orjson

# Above it not every whole number is a float, so that two ids could be one.
_EXACT_FLOATS: Final = 1 << 53


def id_text(value: object) -> str | None:
    """Return an id as text: 42, 42.0 and "42" are the same id.

    Args:
        value: What stands there; None for nothing.

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
    """Return a rating or a time of JSON as the text that it would be in a table; what is neither, as JSON has it."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return repr(value)
    return orjson.dumps(value).decode()
