"""Reads the rows of a file of JSON objects, one per line.

Invariants:

1. Every line is blank, a good row or a bad row; a bad row is located by its line number in the file.
2. The names in the first lines decide the field of each role, as a header does. A later line with a rating or time that
   the first lines lack is a bad row, so that nothing is ignored silently.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa

from service.errors import DataError
from service.training.data.data_request import ReadOptions
from service.training.data.field_values import id_text, number_text, quoted
from service.training.data.files.text_file import BYTE_ORDER_MARK, line_blocks, open_text
from service.training.data.formats import column_roles, foreign_files
from service.training.data.formats.field_columns import bad_row_reason, parse_texts
from service.training.data.row_collector import MAX_EXAMPLES, RowCollector
from service.training.data.sources import DataFile

# Parsed objects take about ten times the memory of their text.
_BLOCK_BYTES: Final = 8 << 20
_HEAD_LINES: Final = 200
# Bounds the cache of key tuples for a file in which every object has other keys.
_MAX_KEY_TUPLES: Final = 4096


def read_jsonl(
    file: DataFile,
    options: ReadOptions,
    collector: RowCollector,
    on_raw: Callable[[bytes], None],
    *,
    block_bytes: int = _BLOCK_BYTES,
) -> None:
    """Read a file of JSON lines in blocks, as a `datasets.Reader` does; an empty file has no rows.

    Raises:
        DataError: The first lines hold no object with a user and an item, or the file is broken.
        OSError: It cannot be read.
    """
    reader: _LineReader | None = None
    with open_text(file.path, options.encoding, on_raw) as text_file:
        for block in line_blocks(text_file, file.name, block_bytes):
            text = block
            if reader is None:
                text = text.removeprefix(BYTE_ORDER_MARK)
                reader = _LineReader(file, options, text, collector)
            reader.read(text)


class _LineReader:
    """Reads the blocks of a file in order."""

    def __init__(self, file: DataFile, options: ReadOptions, first_block: bytes, collector: RowCollector) -> None:
        self._name = file.short_name
        self._options = options
        self._collector = collector
        self._n_lines = 0
        names = _field_names(file.name, first_block)
        columns = column_roles.named_columns(file.name, names, options)
        collector.add_column_notes(column_roles.describe_columns(self._name, columns, names, len(names)))
        self._fields = tuple(None if position is None else names[position] for position in columns)
        self._refusal_of_keys: dict[tuple[str, ...], str] = {}
        collector.begin_file(file.name, has_ratings=columns.rating is not None, has_times=columns.timestamp is not None)

    def read(self, block: bytes) -> None:
        bad: dict[int, str] = {}
        numbers: list[int] = []
        columns: tuple[list[str], ...] = ([], [], [], [])
        lines = block.split(b"\n")
        for number, line in enumerate(lines, self._n_lines + 1):
            if not line or line.isspace():
                continue
            row = self._parse_line(line)
            if isinstance(row, str):
                bad[number] = row
                continue
            numbers.append(number)
            for column, text in zip(columns, row, strict=True):
                column.append(text)
        # After the newline at a block's end split() returns one more line.
        self._n_lines += len(lines) - block.endswith(b"\n")
        bad |= self._collect(columns, numbers)
        self._collector.reject(self._name, bad)

    def _parse_line(self, line: bytes) -> tuple[str, str, str, str] | str:
        """Return a line's fields as texts, or why it is a bad row."""
        try:
            parsed = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            return f"not JSON, {error.msg} at character {error.colno}"
        if type(parsed) is not dict:
            return "not a JSON object"
        if refusal := self._refusal(parsed):
            return refusal
        user_field, item_field, rating_field, time_field = self._fields
        user, item = parsed.get(user_field), parsed.get(item_field)
        user_id, item_id = id_text(user), id_text(item)
        if user_id is None or item_id is None:
            role, value = ("user", user) if user_id is None else ("item", item)
            return f"the {role} id {quoted(number_text(value))} is neither a text nor a whole number"
        rating = "" if rating_field is None else number_text(parsed.get(rating_field))
        return user_id, item_id, rating, "" if time_field is None else number_text(parsed.get(time_field))

    def _refusal(self, parsed: dict[str, Any]) -> str:
        """Return which role an object has and the first lines lack; empty if there is none."""
        keys = tuple(parsed)
        refusal = self._refusal_of_keys.get(keys)
        if refusal is None:
            if len(self._refusal_of_keys) == _MAX_KEY_TUPLES:
                self._refusal_of_keys.clear()
            position_of = column_roles.find_roles(keys, self._options.column_of)
            refusal = ""
            for role, own in zip(("rating", "timestamp"), self._fields[2:], strict=True):
                position = position_of[role]
                if own is None and position is not None:
                    refusal = f"a {role}, {quoted(keys[position])}, where the first lines have none"
            self._refusal_of_keys[keys] = refusal
        return refusal

    def _collect(self, texts: tuple[list[str], ...], numbers: list[int]) -> dict[int, str]:
        """Add the good rows; return the reason of each bad one by line number."""
        arrays = (
            None if name is None else pa.array(column, pa.string())
            for name, column in zip(self._fields, texts, strict=True)
        )
        dates = self._options.dates
        decimal_comma = self._options.decimal == "comma"
        batch = parse_texts(tuple(arrays), self._collector, decimal_comma=decimal_comma, dates=dates)
        good = batch.good()
        self._collector.add(batch, good)
        bad: dict[int, str] = {}
        for rank, row in enumerate(np.flatnonzero(~good).tolist()):
            fields = (None if name is None else column[row] for name, column in zip(self._fields, texts, strict=True))
            bad[numbers[row]] = bad_row_reason(tuple(fields), dates) if rank < MAX_EXAMPLES else ""
        return bad


def _field_names(name: str, text: bytes) -> list[str]:
    """Return the names of the fields of the first objects, each once."""
    foreign_files.refuse(name, text)
    names: dict[str, None] = {}
    n_objects = 0
    for line in text.split(b"\n", _HEAD_LINES)[:_HEAD_LINES]:
        try:
            parsed = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if type(parsed) is dict:
            n_objects += 1
            names |= dict.fromkeys(parsed)
    if not n_objects:
        if not text.strip():
            raise DataError(f"{name} holds no rows.")
        raise DataError(f"{name} has no JSON object in its first lines: write one object a line.")
    return list(names)
