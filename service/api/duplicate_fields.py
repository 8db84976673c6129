"""Finds JSON objects that name a field twice, which parsers read as they like (RFC 8259 section 4).

The check costs little because it counts. A valid text has one colon outside of its strings for each field, and the
value read from it has one entry for each name; if the numbers differ, a name came twice.
"""

import json
import re
from typing import Any, Final

_ESCAPE: Final = re.compile(rb"\\.", re.DOTALL)
_PATH_LIMIT: Final = 256


def has_repeats(raw: bytes, n_fields: int) -> bool:
    """Say whether an object of a text names a field twice.

    Args:
        raw: Valid JSON.
        n_fields: The fields of all objects in the value that was read from it.
    """
    if raw.count(b":") == n_fields:
        return False
    # Without escapes, every second piece between quotation marks is outside of a string.
    plain = _ESCAPE.sub(b"", raw) if b"\\" in raw else raw
    return b"".join(plain.split(b'"')[::2]).count(b":") != n_fields


def first_repeat(raw: bytes) -> str:
    """Return where the first repeated field is, such as `events[2].value`; for a text that has one.

    Args:
        raw: Valid JSON, nested no deeper than the interpreter's own limit.
    """
    value = json.loads(raw, object_pairs_hook=_Pairs, parse_int=str, parse_float=str)
    return (_search(value, "") or "")[:_PATH_LIMIT]


class _Pairs(list[tuple[str, Any]]):
    """The fields of an object, as often as they came."""


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
