"""Reads the rows of a file of JSON objects, one a line.

Invariants:

1. Every line is blank, a good row or a bad row; a bad row is named by the number of its line in the file.
2. Which field is which is decided once, by the names in the first lines, as in a header. A later line with a rating or
   a time that the first lines lack is a bad row: nothing is passed over in silence.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa

from service.errors import DataError
from service.training.data.data_request import ReadOptions
from service.training.data.files.text_file import open_text
from service.training.data.formats import foreign_files, table_layout
from service.training.data.formats.blocks import BYTE_ORDER_MARK, blocks
from service.training.data.formats.typed_values import id_text, number_text
from service.training.data.messages import describe_columns
from service.training.data.rows import (
    MAX_EXAMPLES,
    Batch,
    RowCollector,
    bad_row_reason,
    decimal_points,
    encode_ids,
    quoted,
    to_ratings,
    to_times,
)
from service.training.data.sources import DataFile

# Objects take some ten times the room of their text while they are looked at.
_BLOCK_BYTES: Final = 8 << 20
_HEAD_LINES: Final = 200
# Nobody's data has so many sets of names; a file that is made to have them must not fill the memory.
_SHAPES: Final = 4096


def read_jsonl(file: DataFile, options: ReadOptions, collector: RowCollector, on_raw: Callable[[bytes], None]) -> None:
    """Read a file of JSON lines.

    Args:
        file: The file; an empty one has no rows.
        options: How its fields are to be understood.
        collector: Takes up the rows.
        on_raw: Called with the file's own bytes, in order.

    Raises:
        DataError: Its first lines hold no object, or none with a user and an item, or it is packed and broken.
        OSError: It cannot be read.
    """
    reader: _Reader | None = None
    with open_text(file.path, options.encoding, on_raw) as text_file:
        for block in blocks(text_file, file.name, _BLOCK_BYTES):
            text = block
            if reader is None:
                text = text.removeprefix(BYTE_ORDER_MARK)
                reader = _Reader(file, options, text, collector)
            reader.read(text)


class _Reader:
    """Takes blocks in order."""

    def __init__(self, file: DataFile, options: ReadOptions, first_block: bytes, collector: RowCollector) -> None:
        self._name = file.short_name
        self._reading = options
        self._into = collector
        self._n_lines = 0
        names = _names(file.name, first_block)
        columns = table_layout.named_columns(file.name, names, options)
        collector.add_column_notes(describe_columns(self._name, columns, names, len(names)))
        self._fields = tuple(None if place is None else names[place] for place in columns)
        self._refused_shapes: dict[tuple[str, ...], str] = {}
        collector.begin_file(file.name, has_ratings=columns.rating is not None, has_times=columns.timestamp is not None)

    def read(self, block: bytes) -> None:
        bad: dict[int, str] = {}
        places: list[int] = []
        columns: tuple[list[str], ...] = ([], [], [], [])
        lines = block.split(b"\n")
        for number, line in enumerate(lines, self._n_lines + 1):
            if not line or line.isspace():
                continue
            row = self._row(line)
            if isinstance(row, str):
                bad[number] = row
                continue
            places.append(number)
            for column, text in zip(columns, row, strict=True):
                column.append(text)
        # A block ends with a newline, after which split finds one more line.
        self._n_lines += len(lines) - block.endswith(b"\n")
        bad |= self._take(columns, places)
        self._into.reject(self._name, bad)

    def _row(self, line: bytes) -> tuple[str, str, str, str] | str:
        """Return a line's fields as texts, or what is wrong with it."""
        try:
            found = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            return f"not JSON, {error.msg} at character {error.colno}"
        if type(found) is not dict:
            return "not a JSON object"
        if refusal := self._refusal(found):
            return refusal
        user_field, item_field, rating_field, time_field = self._fields
        user, item = found.get(user_field), found.get(item_field)
        user_id, item_id = id_text(user), id_text(item)
        if user_id is None or item_id is None:
            what, value = ("user", user) if user_id is None else ("item", item)
            return f"the {what} id {quoted(number_text(value))} is neither a text nor a whole number"
        rating = "" if rating_field is None else number_text(found.get(rating_field))
        return user_id, item_id, rating, "" if time_field is None else number_text(found.get(time_field))

    def _refusal(self, found: dict[str, Any]) -> str:
        """Say which field an object has that the first lines lack; nothing if it has none."""
        shape = tuple(found)
        known = self._refused_shapes.get(shape)
        if known is None:
            if len(self._refused_shapes) == _SHAPES:
                self._refused_shapes.clear()
            roles = table_layout.roles(shape, self._reading.column_of)
            known = ""
            for role, own in zip(("rating", "timestamp"), self._fields[2:], strict=True):
                place = roles[role]
                if own is None and place is not None:
                    known = f"a {role}, {quoted(shape[place])}, where the first lines have none"
            self._refused_shapes[shape] = known
        return known

    def _take(self, texts: tuple[list[str], ...], places: list[int]) -> dict[int, str]:
        """Take up the good rows; return by line what is wrong with the others."""
        user, item, rating, timestamp = (
            None if name is None else pa.array(column, pa.string())
            for name, column in zip(self._fields, texts, strict=True)
        )
        dates = self._reading.dates
        if rating is not None and self._reading.decimal == "comma":
            rating = decimal_points(rating)
        batch = Batch(
            users=encode_ids(user, self._into.users),
            items=encode_ids(item, self._into.items),
            ratings=None if rating is None else to_ratings(rating),
            timestamps=None if timestamp is None else to_times(timestamp, dates),
        )
        good = batch.good()
        self._into.add(batch, good)
        bad: dict[int, str] = {}
        for rank, row in enumerate(np.flatnonzero(~good).tolist()):
            fields = (None if name is None else column[row] for name, column in zip(self._fields, texts, strict=True))
            bad[places[row]] = bad_row_reason(tuple(fields), dates) if rank < MAX_EXAMPLES else ""
        return bad


def _names(name: str, text: bytes) -> list[str]:
    """Return the names of the fields of the first objects, each once."""
    foreign_files.refuse(name, text)
    names: dict[str, None] = {}
    n_objects = 0
    for line in text.split(b"\n", _HEAD_LINES)[:_HEAD_LINES]:
        try:
            found = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if type(found) is dict:
            n_objects += 1
            names |= dict.fromkeys(found)
    if not n_objects:
        if not text.strip():
            raise DataError(f"{name} holds no rows")
        raise DataError(f"{name} has no JSON object in its first lines: write one object a line")
    return list(names)
