"""Reads the rows of one text table, by whole blocks, with pyarrow.

Invariants:

1. Every line but the header, and remarks before the first row, is a blank line, a good row or a bad row; n_rows = good
   + bad. A bad row is named by the number of its line in the file.
2. pyarrow sees only what `lines.blank_out` let through, and the number of a line never changes on the way.
3. Memory is the resulting arrays and one block.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv as arrow_csv

from service.errors import DataError
from service.training import layout as layouts
from service.training.layout import Layout
from service.training.lines import Lines, blank_out
from service.training.values import ID_LIMIT, NO_TIME, parse_id, parse_number, parse_time, seconds_of, shown

N_EXAMPLES: Final = 10
_BLOCK_BYTES: Final = 32 << 20
_LINE_LIMIT_BYTES: Final = 256 << 20
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
# Stands for '::', which pyarrow does not take as a delimiter; in a line of data it makes one field too many.
_UNIT_SEPARATOR: Final = "\x1f"
_QUOTE, _NEWLINE, _RETURN = b'"', b"\n", b"\r"


@dataclass(eq=False)
class Rows:
    """The good rows of a table, and what was left out.

    Attributes:
        user_codes: int32 (n,), positions in `user_ids`.
        item_codes: int32 (n,), positions in `item_ids`.
        ratings: float32 (n,).
        timestamps: int64 (n,), unix seconds; None if the table has no times.
        user_ids: ids in order of first appearance; those that only bad rows name are among them.
        item_ids: likewise.
        n_rows: rows met, good or bad.
        n_bad_rows: bad ones.
        bad_examples: the first of them, "file:line: reason".
        sha256: of the file's bytes, in hexadecimal.
    """

    user_codes: NDArray[np.int32]
    item_codes: NDArray[np.int32]
    ratings: NDArray[np.float32]
    timestamps: NDArray[np.int64] | None
    user_ids: list[str]
    item_ids: list[str]
    n_rows: int
    n_bad_rows: int
    bad_examples: list[str]
    sha256: str


def read_rows(path: Path, on_bytes: Callable[[int], None]) -> Rows:
    """Read a text table.

    Args:
        path: the file.
        on_bytes: called after every block with the bytes read so far.

    Raises:
        DataError: the file is empty, or is not a table with a user and an item column.
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    reader: _Reader | None = None
    n_bytes = 0
    with path.open("rb") as file:
        for block in _blocks(file, path):
            digest.update(block)
            text = block
            if reader is None:
                text = text.removeprefix(_BYTE_ORDER_MARK)
                layout = layouts.detect(str(path), _head(text))
                reader = _Reader(shown(path.name), layout)
                text = reader.skip(text)
            reader.read(text)
            n_bytes += len(block)
            on_bytes(n_bytes)
    if reader is None:
        raise DataError(f"{path} is empty")
    return reader.finish(digest.hexdigest())


def _head(text: bytes) -> bytes:
    """Return the first lines, whole; a first line of any length is among them, and others after it."""
    head = text[: max(layouts.HEAD_BYTES, text.find(_NEWLINE) + layouts.HEAD_BYTES)]
    return head if len(text) == len(head) else head[: head.rfind(_NEWLINE) + 1] or head


def _blocks(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """Yield a file's bytes in blocks that end with a line; a file that fits into one block is one."""
    rest, following = b"", file.read(_BLOCK_BYTES)
    while following:
        block, following = following, file.read(_BLOCK_BYTES)
        cut = block.rfind(_NEWLINE) + 1 if following else len(block)
        if cut:
            yield rest + block[:cut]
            rest = block[cut:]
        else:
            rest += block
            if len(rest) > _LINE_LIMIT_BYTES:
                raise DataError(f"{path} is not a text table: it has a line of over {_LINE_LIMIT_BYTES >> 20} MiB")
    if rest:
        yield rest


@dataclass(eq=False)
class _Reader:
    """Takes blocks in order; `n_lines` is how many lines came before the next one."""

    name: str
    layout: Layout
    n_lines: int = 0
    n_rows: int = 0
    n_bad_rows: int = 0
    examples: list[str] = field(default_factory=list)
    users: dict[str, int] = field(default_factory=dict)
    items: dict[str, int] = field(default_factory=dict)
    parts: list[tuple[NDArray[Any], ...]] = field(default_factory=list)

    def skip(self, text: bytes) -> bytes:
        """Return the file's first block without what is before the first row."""
        for _ in range(self.layout.n_skipped_lines):
            text = text.partition(_NEWLINE)[2]
        self._note(dict.fromkeys(self.layout.unread_lines, "not the header, and not a row as there are after it"))
        self.n_lines = self.layout.n_skipped_lines
        return text

    def read(self, block: bytes) -> None:
        text = block.replace(b"\r\n", _NEWLINE).removesuffix(_RETURN) if _RETURN in block else block
        if not text:
            return
        text, bad = blank_out(text, self.layout)
        table, skipped = self._parse(text, bad)
        n_lines = text.count(_NEWLINE) + (not text.endswith(_NEWLINE))
        lines = np.delete(np.arange(n_lines), skipped) if skipped else np.arange(n_lines)
        self._take(table, lines, text, bad)
        self._note(bad)
        self.n_lines += n_lines

    def _note(self, bad: dict[int, str]) -> None:
        for line, reason in sorted(bad.items())[: N_EXAMPLES - len(self.examples)]:
            self.examples.append(f"{self.name}:{self.n_lines + line + 1}: {reason}")
        self.n_rows += len(bad)
        self.n_bad_rows += len(bad)

    def finish(self, sha256: str) -> Rows:
        empty = (np.int32, np.int32, np.float32, np.int64)
        columns = [
            np.concatenate([part[i] for part in self.parts]) if self.parts else np.empty(0, dtype)
            for i, dtype in enumerate(empty)
            if i < 3 or self.layout.timestamp is not None
        ]
        self.parts.clear()
        return Rows(
            user_codes=columns[0],
            item_codes=columns[1],
            ratings=columns[2],
            timestamps=columns[3] if len(columns) > 3 else None,
            user_ids=list(self.users),
            item_ids=list(self.items),
            n_rows=self.n_rows,
            n_bad_rows=self.n_bad_rows,
            bad_examples=self.examples,
            sha256=sha256,
        )

    def _parse(self, text: bytes, bad: dict[int, str]) -> tuple[pa.Table, list[int]]:
        """Return the rows with the right number of fields, as strings, and the lines (0-based) not among them."""
        layout = self.layout
        separator = layout.separator
        if len(separator) > 1:
            text, separator = text.replace(separator.encode(), _UNIT_SEPARATOR.encode()), _UNIT_SEPARATOR
        skipped: list[int] = []

        def on_invalid_row(row: Any) -> str:
            line = row.number - 1
            skipped.append(line)
            # A line of nothing but blanks is one that we made so, for a reason that is known, or a blank line.
            if line not in bad and not row.text.isspace():
                bad[line] = f"{_count(row.actual_columns, 'field')} instead of {row.expected_columns}"
            return "skip"

        names = [str(i) for i in range(layout.n_fields)]
        wanted = [str(i) for i in (layout.user, layout.item, layout.rating, layout.timestamp) if i is not None]
        table = arrow_csv.read_csv(
            pa.BufferReader(text),
            # One block and one thread: only then does pyarrow number the rows it skips.
            read_options=arrow_csv.ReadOptions(use_threads=False, block_size=len(text) + 1, column_names=names),
            parse_options=arrow_csv.ParseOptions(
                delimiter=separator,
                quote_char='"' if layout.has_quotes and _QUOTE in text else False,
                ignore_empty_lines=False,
                invalid_row_handler=on_invalid_row,
            ),
            convert_options=arrow_csv.ConvertOptions(
                # What is not UTF-8 was taken out above.
                check_utf8=False,
                column_types=dict.fromkeys(wanted, pa.string()),
                include_columns=wanted,
                strings_can_be_null=False,
            ),
        )
        return table, skipped

    def _take(self, table: pa.Table, lines: NDArray[np.int64], text: bytes, bad: dict[int, str]) -> None:
        """Turn strings into codes and numbers, keep the good rows, and note the reason of the first bad ones."""
        layout = self.layout
        users = _codes(table[str(layout.user)], self.users)
        items = _codes(table[str(layout.item)], self.items)
        good = (users >= 0) & (items >= 0)
        ratings = np.ones(users.size, dtype=np.float32)
        if layout.rating is not None:
            ratings = _numbers(table[str(layout.rating)])
            good &= ~np.isnan(ratings)
        columns: list[NDArray[Any]] = [users, items, ratings]
        if layout.timestamp is not None:
            timestamps = _times(table[str(layout.timestamp)])
            good &= timestamps != NO_TIME
            columns.append(timestamps)
        if not good.all():
            wrong = np.flatnonzero(~good)
            # pyarrow makes a row of empty fields of an empty line.
            wrong = wrong[Lines(text).lengths()[lines[wrong]] > 0]
            for rank, row in enumerate(wrong.tolist()):
                # Only the first can become examples, and finding a reason takes microseconds.
                bad[int(lines[row])] = self._reason(table, row) if rank < N_EXAMPLES else ""
            columns = [column[good] for column in columns]
        self.n_rows += columns[0].size
        self.parts.append(tuple(columns))

    def _reason(self, table: pa.Table, row: int) -> str:
        checks: tuple[tuple[int | None, Callable[[str], object], str], ...] = (
            (self.layout.user, parse_id, "user id"),
            (self.layout.item, parse_id, "item id"),
            (self.layout.rating, parse_number, "rating"),
            (self.layout.timestamp, parse_time, "timestamp"),
        )
        faults = {
            "user id": f"is not of 1 to {ID_LIMIT} characters without control characters",
            "item id": f"is not of 1 to {ID_LIMIT} characters without control characters",
            "rating": "is not a finite number",
            "timestamp": "is neither unix time nor ISO 8601",
        }
        for position, parse, what in checks:
            if position is not None:
                value = table[str(position)][row].as_py()
                if parse(value) is None:
                    return f"the {what} {_short(value)} {faults[what]}" if value.strip() else f"the {what} is empty"
        raise AssertionError("a row was left out for no reason")


def _codes(column: pa.ChunkedArray, ids: dict[str, int]) -> NDArray[np.int32]:
    """Return each field's position in `ids`, which takes up the new ones; -1 where a field is no id."""
    encoded = pc.dictionary_encode(column.combine_chunks())
    code_of: NDArray[np.int32] = np.fromiter(
        (
            -1 if (id_ := parse_id(text)) is None else ids.setdefault(id_, len(ids))
            for text in encoded.dictionary.to_pylist()
        ),
        dtype=np.int32,
    )
    codes: NDArray[np.int32] = code_of[encoded.indices.to_numpy()]
    return codes


def _numbers(column: pa.ChunkedArray) -> NDArray[np.float32]:
    encoded = pc.dictionary_encode(column.combine_chunks())
    values = (parse_number(text) for text in encoded.dictionary.to_pylist())
    number_of = np.fromiter((np.nan if value is None else value for value in values), dtype=np.float32)
    numbers: NDArray[np.float32] = number_of[encoded.indices.to_numpy()]
    return numbers


def _times(column: pa.ChunkedArray) -> NDArray[np.int64]:
    strings = column.combine_chunks()
    try:
        return seconds_of(pc.cast(strings, pa.int64()).to_numpy())
    except pa.ArrowInvalid:  # not all of them are plain whole numbers
        encoded = pc.dictionary_encode(strings)
        values = (parse_time(text) for text in encoded.dictionary.to_pylist())
        seconds_of_text = np.fromiter((NO_TIME if value is None else value for value in values), dtype=np.int64)
        seconds: NDArray[np.int64] = seconds_of_text[encoded.indices.to_numpy()]
        return seconds


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _short(value: str) -> str:
    return repr(value if len(value) <= 40 else f"{value[:40]}…")
