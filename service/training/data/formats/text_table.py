"""Reads the rows of one text table, by whole blocks, with pyarrow.

Invariants:

1. Every line but the header, and remarks before the first row, is a blank line, a good row or a bad row. A bad row is
   named by the number of its line in the file.
2. pyarrow sees only what `lines.blank_out` let through, and the number of a line never changes on the way.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv as arrow_csv

from service.training.data.data_request import ReadOptions
from service.training.data.files.text_file import open_text
from service.training.data.formats import table_layout as layouts
from service.training.data.formats.blocks import BYTE_ORDER_MARK, blocks
from service.training.data.formats.lines import Lines, blank_out
from service.training.data.formats.multiline import joined
from service.training.data.formats.table_layout import Layout
from service.training.data.messages import describe_columns
from service.training.data.rows import (
    MAX_EXAMPLES,
    Batch,
    RowCollector,
    bad_row_reason,
    decimal_points,
    encode_ids,
    to_ratings,
    to_times,
)
from service.training.data.sources import DataFile

_BLOCK_BYTES: Final = 32 << 20
# Stands for '::', which pyarrow does not take as a delimiter; in a line of data it makes one field too many.
_UNIT_SEPARATOR: Final = "\x1f"
_HEADER_AGAIN: Final = "the header once more"
_QUOTE, _NEWLINE, _RETURN = b'"', b"\n", b"\r"


def read_table(file: DataFile, options: ReadOptions, collector: RowCollector, on_raw: Callable[[bytes], None]) -> None:
    """Read a text table.

    Args:
        file: The file.
        options: How its fields are to be understood.
        collector: Takes up the rows.
        on_raw: Called with the file's own bytes, in order.

    Raises:
        DataError: The file is not a table with a user and an item column, or is packed and broken.
        OSError: It cannot be read.
    """
    reader: _Reader | None = None
    with open_text(file.path, options.encoding, on_raw) as text_file:
        following = blocks(text_file, file.name, _BLOCK_BYTES)
        block = next(following, b"")
        while block:
            text, block = block, next(following, b"")
            if reader is None:
                text = text.removeprefix(BYTE_ORDER_MARK)
                layout = layouts.detect(file.name, _head(text), options)
                collector.begin_file(
                    file.name, has_ratings=layout.rating is not None, has_times=layout.timestamp is not None
                )
                collector.add_column_notes(
                    describe_columns(file.short_name, layout.columns, layout.names, layout.n_fields)
                )
                reader = _Reader(file.short_name, layout, collector)
                text = reader.skip(text)
            reader.read(text, is_last=not block)


def _head(text: bytes) -> bytes:
    """Return the first lines, whole; a first line of any length is among them, and others after it."""
    head = text[: max(layouts.HEAD_BYTES, text.find(_NEWLINE) + layouts.HEAD_BYTES)]
    return head if len(text) == len(head) else head[: head.rfind(_NEWLINE) + 1] or head


@dataclass(eq=False)
class _Reader:
    """Takes blocks in order; `n_lines` is how many lines came before the next one."""

    name: str
    layout: Layout
    collector: RowCollector
    n_lines: int = 0
    rest: bytes = b""

    def skip(self, text: bytes) -> bytes:
        """Return the file's first block without what is before the first row."""
        for _ in range(self.layout.n_skipped_lines):
            text = text.partition(_NEWLINE)[2]
        self._note(dict.fromkeys(self.layout.unread_lines, "not the header, and not a row as there are after it"))
        self.n_lines = self.layout.n_skipped_lines
        return text

    def read(self, block: bytes, *, is_last: bool) -> None:
        """Read a block; what of it may go on in the next one waits for it."""
        text = block.replace(b"\r\n", _NEWLINE).removesuffix(_RETURN) if _RETURN in block else block
        if BYTE_ORDER_MARK in text:
            # Where files with such marks were put behind one another; an id is stripped of blanks.
            blanks = b" " * len(BYTE_ORDER_MARK)
            text = text.replace(_NEWLINE + BYTE_ORDER_MARK, _NEWLINE + blanks)
            text = blanks + text.removeprefix(BYTE_ORDER_MARK) if text.startswith(BYTE_ORDER_MARK) else text
        text, ends, self.rest = joined(self.rest + text, self.layout, is_last=is_last)
        if not text:
            return
        text, bad = blank_out(text, self.layout)
        table, skipped = self._parse(text, bad)
        n_rows = text.count(_NEWLINE) + (not text.endswith(_NEWLINE))
        lines = np.delete(np.arange(n_rows), skipped) if skipped else np.arange(n_rows)
        self._take(table, lines, text, bad)
        if ends.size:
            # SourceRows are counted; the file's lines are more, for some rows have several.
            starts = np.delete(np.arange(n_rows + ends.size), ends)
            bad = {int(starts[row]): reason for row, reason in bad.items()}
        self._note(bad)
        self.n_lines += n_rows + ends.size

    def _note(self, bad: dict[int, str]) -> None:
        self.collector.reject(self.name, {self.n_lines + line + 1: reason for line, reason in bad.items()})

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
        user, item, rating, timestamp = (
            None if position is None else table[str(position)].combine_chunks()
            for position in (layout.user, layout.item, layout.rating, layout.timestamp)
        )
        if rating is not None and layout.decimal_comma:
            rating = decimal_points(rating)
        batch = Batch(
            users=encode_ids(user, self.collector.users),
            items=encode_ids(item, self.collector.items),
            ratings=None if rating is None else to_ratings(rating),
            timestamps=None if timestamp is None else to_times(timestamp, layout.dates),
        )
        is_header = self._repeats_header(batch)
        good = batch.good() & ~is_header
        self.collector.add(batch, good)
        wrong = np.flatnonzero(~good)
        if wrong.size:
            # pyarrow makes a row of empty fields of an empty line.
            wrong = wrong[Lines(text).lengths()[lines[wrong]] > 0]
        for rank, row in enumerate(wrong.tolist()):
            # Only the first can become examples, and finding a reason takes microseconds.
            fields = (None if column is None else column[row].as_py() for column in (user, item, rating, timestamp))
            reason = (
                _HEADER_AGAIN
                if is_header[row]
                else bad_row_reason(tuple(fields), layout.dates)
                if rank < MAX_EXAMPLES
                else ""
            )
            bad[int(lines[row])] = reason

    def _repeats_header(self, batch: Batch) -> NDArray[np.bool_]:
        """Tell which rows are the header once more, as where files were put behind one another; bool (n,)."""
        layout = self.layout
        user = item = None
        if layout.names is not None and max(layout.user, layout.item) < len(layout.names):
            user = self.collector.users.get(layout.names[layout.user].strip())
            item = self.collector.items.get(layout.names[layout.item].strip())
        if user is None or item is None:
            return np.zeros(batch.users.size, np.bool_)
        found: NDArray[np.bool_] = (batch.users == user) & (batch.items == item)
        return found


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
