"""Columns of a file of users or items as attributes (pure).

Values with types, from JSON and Parquet, are kept as they are. A column of texts, from a table, is numbers if all of
its values are, flags if all are true or false, several categories if a value has a bar in it, else categories. A number
with leading zeros is a code, so that its column is one of categories.

Limits are those of `PUT /v1/items/{item_id}`: a text is at most 256 characters, a list 100 texts, a row 32 attributes.
"""

import math
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Final

from service.models.items.record import AttributeValue
from service.training.data.formats import column_roles

_ATTRIBUTES_LIMIT: Final = 32
_VALUES_LIMIT: Final = 100
_TEXT_LIMIT: Final = 256
_NUMBER_LIMIT: Final = 10**15
_NUMBER: Final = re.compile(r"[+-]?(?:0|[1-9][0-9]*)?(?:(?<=[0-9])\.?|\.(?=[0-9]))[0-9]*(?:[eE][+-]?[0-9]+)?")
_CODE: Final = re.compile(r"[+-]?0[0-9]")
_FLAGS: Final = {"true": True, "false": False}
_BETWEEN_CATEGORIES: Final = "|"
_NOT_OF_A_NAME: Final = re.compile(r"[^A-Za-z0-9_]+")
_RESERVED: Final = frozenset({"schema", "title"})
_LONGEST_NAME: Final = 64


def attribute_name(column: str) -> str | None:
    """Return the name of an attribute for a column's name; None if there is none, such as for one without letters."""
    name = _NOT_OF_A_NAME.sub("_", column_roles.without_type(column)).strip("_")[:_LONGEST_NAME]
    if name[:1].isdigit():
        name = f"_{name}"[:_LONGEST_NAME]
    return None if not name or name in _RESERVED else name


def chosen_columns(columns: Sequence[str], not_attributes: Iterable[int]) -> dict[int, str]:
    """Return the attributes' names by position: those of the first 32 columns with a name of their own.

    Args:
        columns: The names of all columns.
        not_attributes: The positions of columns that are something else.
    """
    others = set(not_attributes)
    found: dict[int, str] = {}
    for position, column in enumerate(columns):
        name = attribute_name(column)
        if position not in others and name is not None and name not in found.values():
            found[position] = name
    return dict(list(found.items())[:_ATTRIBUTES_LIMIT])


def typed_texts(texts: Sequence[str], column: str) -> list[AttributeValue | None]:
    """Return the values of a column of texts; None for an empty one, or one that is too long.

    Args:
        texts: The texts, without surrounding blanks.
        column: The name of the column; RecBole's `token_seq` separates categories by blanks.
    """
    known = [text for text in texts if text]
    if column.strip().endswith(":token_seq"):
        return [_list(text.split()) for text in texts]
    if all(_NUMBER.fullmatch(text) and not _CODE.match(text) for text in known):
        return [_number(text) for text in texts]
    if all(text.lower() in _FLAGS for text in known):
        return [_FLAGS.get(text.lower()) for text in texts]
    if any(_BETWEEN_CATEGORIES in text for text in known):
        return [_list(text.split(_BETWEEN_CATEGORIES)) for text in texts]
    return [_text(text) for text in texts]


def typed_value(value: object) -> AttributeValue | None:
    """Return a value of JSON or Parquet as that of an attribute; None if it cannot be one."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value.strip())
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, int | float):
        return value if math.isfinite(value) and abs(value) <= _NUMBER_LIMIT else None
    if isinstance(value, list | tuple):
        return _list([entry if isinstance(entry, str) else _code(entry) for entry in value])
    return None


def _code(entry: object) -> str:
    """Return the text of an entry of a list that is no text; empty if it is no number."""
    is_number = isinstance(entry, int | float) and not isinstance(entry, bool)
    return str(entry) if is_number else ""


def _number(text: str) -> int | float | None:
    if not text:
        return None
    number = float(text)
    if not abs(number) <= _NUMBER_LIMIT:
        return None
    return int(number) if number.is_integer() else number


def _text(text: str) -> str | None:
    return text if 1 <= len(text) <= _TEXT_LIMIT else None


def _list(texts: Iterable[str]) -> list[str] | None:
    stripped = dict.fromkeys(text.strip() for text in texts)
    return [text for text in stripped if 1 <= len(text) <= _TEXT_LIMIT][:_VALUES_LIMIT] or None
