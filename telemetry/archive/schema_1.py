"""Served lists in schema 1, an object for each item, for readers that accept no other schema.

Invariant: a line of schema 2 to 4 and its expansion read back as the same event (`events.decode`). Pure.
"""

from typing import Any, Final

import orjson

from telemetry.errors import BadEventError
from telemetry.events import SCHEMA, SERVED_STARTS
from telemetry.served_items import Items

# Fields of schemas 1 and 2 that were always null and that schema 3 leaves out, by the field before each. Schema 4 uses
# the second one.
_NULL_AFTER: Final = {"model": "variant", "candidate_set": "state_watermark"}


def expand(line: bytes) -> bytes:
    """Convert a served list's line of any schema to schema 1; other lines are returned unchanged.

    Raises:
        BadEventError: The items are not columns.
    """
    if not line.startswith(SERVED_STARTS[:-1]):
        return line
    try:
        fields: dict[str, Any] = {}
        for name, value in orjson.loads(line).items():
            fields[name] = value
            if name in _NULL_AFTER:
                fields.setdefault(_NULL_AFTER[name], None)
        fields["schema"], fields["items"] = SCHEMA, Items.from_fields(fields["items"]).rows()
    except (orjson.JSONDecodeError, KeyError) as error:
        raise BadEventError(f"A served list cannot be read: {error}.") from None
    return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)
