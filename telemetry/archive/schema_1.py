"""Served lists as schema 1 has them, an object for each item, for readers that know no other schema.

Invariant: a line of schema 2 and its expansion read back as the same event (`events.decode`). Pure.
"""

from typing import Any

import orjson

from telemetry.errors import BadEventError
from telemetry.events import SCHEMA, SERVED_STARTS
from telemetry.served_items import Items


def expand(line: bytes) -> bytes:
    """Write a served list as schema 1 has it, with an object for each item; other lines are returned as they are.

    Args:
        line: A line that `encode` made, of this version or an older one.

    Returns:
        The line of schema 1.

    Raises:
        BadEventError: The items are not as schema 2 has them.
    """
    if not line.startswith(SERVED_STARTS[0]):
        return line
    try:
        fields: dict[str, Any] = orjson.loads(line)
        fields["schema"], fields["items"] = SCHEMA, Items.read(fields["items"]).rows()
    except (orjson.JSONDecodeError, KeyError) as error:
        raise BadEventError(f"a served list cannot be read: {error}") from None
    return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)
