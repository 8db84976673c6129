"""Finds duplicate fields of JSON objects, which parsers treat differently (RFC 8259 section 4).

The check counts: valid JSON has one colon outside of its strings per field, and the parsed value has one entry per
name. The numbers differ if a name occurs twice in an object.
"""

import json
import re
from typing import Any, Final

_ESCAPE: Final = re.compile(rb"\\.", re.DOTALL)
_PATH_LIMIT: Final = 256


def has_duplicates(raw: bytes, n_fields: int) -> bool:
    """Whether an object in valid JSON has a field twice; `n_fields` counts the fields in the parsed value."""
    if raw.count(b":") == n_fields:
        return False
    # Without escapes, every other piece between quotation marks lies outside of strings.
    plain = _ESCAPE.sub(b"", raw) if b"\\" in raw else raw
    return b"".join(plain.split(b'"')[::2]).count(b":") != n_fields


def first_duplicate(raw: bytes) -> str:
    """Return the path of the first duplicate field of valid JSON, such as `events[2].value`."""
    value = json.loads(raw, object_pairs_hook=_Pairs, parse_int=str, parse_float=str)
    return (_search(value, "") or "")[:_PATH_LIMIT]


class _Pairs(list[tuple[str, Any]]):
    """The fields of an object, duplicates included."""


def _search(value: Any, path: str) -> str | None:
    if isinstance(value, _Pairs):
        known: set[str] = set()
        for name, child in value:
            where = f"{path}.{name}" if path else name
            if name in known:
                return where
            known.add(name)
            if (found := _search(child, where)) is not None:
                return found
    elif isinstance(value, list):
        for index, child in enumerate(value):
            if (found := _search(child, f"{path}[{index}]")) is not None:
                return found
    return None
