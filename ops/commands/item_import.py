"""The items of a file as the batches that a request can hold (pure).

Invariant: every line is in one batch, as an item or as a bad line; blank lines are neither.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

import orjson

from service.api import item_wire, wire
from service.errors import RequestError

# A request has 64 KiB at most, and a service may be set to less: room for the rest of the body.
BATCH_BYTES: Final = 60_000
# JSON with blanks may be longer than the line that it is from.
_LINE_LIMIT_BYTES: Final = 40_000


class BadLine(NamedTuple):
    """A line that is no item, and why."""

    line: int
    message: str


class ItemBatch(NamedTuple):
    """Some consecutive lines.

    Attributes:
        first_line: The number of the first one, from 1.
        items: The items, as JSON values.
        bad: The bad lines among them.
        n_lines: How many lines, without blank ones.
        n_bytes: Their bytes.
    """

    first_line: int
    items: list[dict[str, Any]]
    bad: list[BadLine]
    n_lines: int
    n_bytes: int


def batches(lines: Iterable[bytes], from_line: int = 1) -> Iterator[ItemBatch]:
    """Yield batches of the lines from a number on."""
    batch = ItemBatch(from_line, [], [], 0, 0)
    size_bytes = 0
    for number, line in enumerate(lines, 1):
        if number < from_line or not line.strip():
            continue
        item = _read(number, line)
        # As the client writes it, with a comma and a blank behind it.
        size_of_item = 0 if isinstance(item, BadLine) else len(json.dumps(item, ensure_ascii=False).encode()) + 2
        if batch.n_lines and (size_bytes + size_of_item > BATCH_BYTES or batch.n_lines >= item_wire.ITEMS_LIMIT):
            yield batch
            batch, size_bytes = ItemBatch(number, [], [], 0, 0), 0
        if isinstance(item, BadLine):
            batch.bad.append(item)
        else:
            batch.items.append(item)
        size_bytes += size_of_item
        batch = batch._replace(n_lines=batch.n_lines + 1, n_bytes=batch.n_bytes + len(line))
    if batch.n_lines:
        yield batch


def _read(number: int, line: bytes) -> dict[str, Any] | BadLine:
    if len(line) > _LINE_LIMIT_BYTES:
        return BadLine(number, f"it has {len(line)} bytes, and an item may have {_LINE_LIMIT_BYTES}")
    try:
        # Refuses a field that is given twice, too.
        wire.decode(item_wire.ItemIn, _with_text_id(line))
    except RequestError as error:
        return BadLine(number, error.detail.removesuffix("."))
    item: dict[str, Any] = orjson.loads(_with_text_id(line))
    return item


def _with_text_id(line: bytes) -> bytes:
    """Return a line whose `item_id` is a text: other programs write ids as numbers."""
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError:
        return line
    item_id = fields.get("item_id") if isinstance(fields, dict) else None
    if type(item_id) is not int:
        return line
    return orjson.dumps(fields | {"item_id": str(item_id)})
