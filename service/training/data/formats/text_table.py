"""Reads the rows of a text table in large blocks, with pyarrow.

Invariants:

1. Every line but the header, and comments before the first row, is a blank line, a good row or a bad row. A bad row is
   located by its line number in the file.
2. pyarrow parses only what `blank_unparsable_lines` leaves, and no step changes the number of a line.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv as arrow_csv

from service.training.data.data_request import ReadOptions
from service.training.data.files.text_file import BYTE_ORDER_MARK, line_blocks, open_text
from service.training.data.formats import column_roles, table_layout
from service.training.data.formats.field_columns import bad_row_reason, parse_texts
from service.training.data.formats.table_layout import TableLayout
from service.training.data.formats.table_lines import LineIndex, blank_unparsable_lines, join_multiline_fields
from service.training.data.row_collector import MAX_EXAMPLES, RowBatch, RowCollector
from service.training.data.sources import DataFile

_BLOCK_BYTES: Final = 32 << 20
# Replaces '::', which pyarrow does not accept as a delimiter; in a line of data it makes one field too many.
_UNIT_SEPARATOR: Final = "\x1f"
_REPEATED_HEADER: Final = "the header once more"
_QUOTE, _NEWLINE, _RETURN = b'"', b"\n", b"\r"


def read_table(
    file: DataFile,
    options: ReadOptions,
    collector: RowCollector,
    on_raw: Callable[[bytes], None],
    *,
    block_bytes: int = _BLOCK_BYTES,
    head_bytes: int = table_layout.HEAD_BYTES,
) -> None:
    """Read a text table in blocks, as a `datasets.Reader` does; detect its layout by about `head_bytes`.

    Raises:
        DataError: The file is not a table with a user and an item column, or is broken.
        OSError: It cannot be read.
    """
    reader: _TableReader | None = None
    with open_text(file.path, options.encoding, on_raw) as text_file:
        following = line_blocks(text_file, file.name, block_bytes)
        block = next(following, b"")
        while block:
            text, block = block, next(following, b"")
            if reader is None:
                text = text.removeprefix(BYTE_ORDER_MARK)
                layout = table_layout.detect(file.name, _head(text, head_bytes), options)
                has_times = layout.timestamp is not None
                collector.begin_file(file.name, has_ratings=layout.rating is not None, has_times=has_times)
                notes = column_roles.describe_columns(file.short_name, layout.columns, layout.names, layout.n_fields)
                collector.add_column_notes(notes)
                reader = _TableReader(file.short_name, layout, collector)
                text = reader.skip_to_rows(text)
            reader.read(text, is_last=not block)


def _head(text: bytes, head_bytes: int) -> bytes:
    """Return the first lines, whole: a first line of any length, and `head_bytes` beyond it."""
    head = text[: max(head_bytes, text.find(_NEWLINE) + head_bytes)]
    return head if len(text) == len(head) else head[: head.rfind(_NEWLINE) + 1] or head


@dataclass(eq=False)
class _TableReader:
    """Reads the blocks of a file in order."""

    name: str  # the file, printable
    layout: TableLayout
    collector: RowCollector  # receives the rows
    n_lines: int = 0  # how many lines were read
    rest: bytes = b""  # the end of the last block, whose last field may continue in the next one

    def skip_to_rows(self, text: bytes) -> bytes:
        """Return the file's first block from the first row on."""
        for _ in range(self.layout.n_skipped_lines):
            text = text.partition(_NEWLINE)[2]
        self._reject(dict.fromkeys(self.layout.unread_lines, "neither the header nor a row of the layout"))
        self.n_lines = self.layout.n_skipped_lines
        return text

    def read(self, block: bytes, *, is_last: bool) -> None:
        text = block.replace(b"\r\n", _NEWLINE).removesuffix(_RETURN) if _RETURN in block else block
        if BYTE_ORDER_MARK in text:
            # Concatenated files have marks at the beginning of lines. Blanks keep the length, and ids are stripped.
            blanks = b" " * len(BYTE_ORDER_MARK)
            text = text.replace(_NEWLINE + BYTE_ORDER_MARK, _NEWLINE + blanks)
            text = blanks + text.removeprefix(BYTE_ORDER_MARK) if text.startswith(BYTE_ORDER_MARK) else text
        text, joined, self.rest = join_multiline_fields(self.rest + text, self.layout, is_last=is_last)
        if not text:
            return
        text, bad = blank_unparsable_lines(text, self.layout)
        table, skipped = self._parse(text, bad)
        n_rows = text.count(_NEWLINE) + (not text.endswith(_NEWLINE))
        lines = np.delete(np.arange(n_rows), skipped) if skipped else np.arange(n_rows)
        self._collect(table, lines, text, bad)
        if joined.size:
            # From rows to lines of the file: a row of a multi-line field has several lines.
            starts = np.delete(np.arange(n_rows + joined.size), joined)
            bad = {int(starts[row]): reason for row, reason in bad.items()}
        self._reject(bad)
        self.n_lines += n_rows + joined.size

    def _reject(self, bad: dict[int, str]) -> None:
        self.collector.reject(self.name, {self.n_lines + line + 1: reason for line, reason in bad.items()})

    def _parse(self, text: bytes, bad: dict[int, str]) -> tuple[pa.Table, list[int]]:
        """Return the rows with the right number of fields, as strings, and the other lines (0-based)."""
        layout = self.layout
        separator = layout.separator
        if len(separator) > 1:
            text, separator = text.replace(separator.encode(), _UNIT_SEPARATOR.encode()), _UNIT_SEPARATOR
        skipped: list[int] = []

        def on_invalid_row(row: Any) -> str:
            line = row.number - 1
            skipped.append(line)
            # A line of blanks alone was blanked for a known reason, or is a blank line.
            if line not in bad and not row.text.isspace():
                n_fields = f"{row.actual_columns} field{'' if row.actual_columns == 1 else 's'}"
                bad[line] = f"{n_fields} instead of {row.expected_columns}"
            return "skip"

        names = [str(i) for i in range(layout.n_fields)]
        wanted = [str(i) for i in layout.columns if i is not None]
        table = arrow_csv.read_csv(
            pa.BufferReader(text),
            # One block and one thread, because pyarrow numbers skipped rows only then.
            read_options=arrow_csv.ReadOptions(use_threads=False, block_size=len(text) + 1, column_names=names),
            parse_options=arrow_csv.ParseOptions(
                delimiter=separator,
                quote_char='"' if layout.has_quotes and _QUOTE in text else False,
                ignore_empty_lines=False,
                invalid_row_handler=on_invalid_row,
            ),
            convert_options=arrow_csv.ConvertOptions(
                # `blank_unparsable_lines` has checked it.
                check_utf8=False,
                column_types=dict.fromkeys(wanted, pa.string()),
                include_columns=wanted,
                strings_can_be_null=False,
            ),
        )
        return table, skipped

    def _collect(self, table: pa.Table, lines: NDArray[np.int64], text: bytes, bad: dict[int, str]) -> None:
        """Add the good rows to the collector, and the reasons of the bad ones to `bad`."""
        layout = self.layout
        texts = tuple(
            None if position is None else table[str(position)].combine_chunks() for position in layout.columns
        )
        batch = parse_texts(texts, self.collector, decimal_comma=layout.decimal_comma, dates=layout.dates)
        is_header = self._repeats_header(batch)
        good = batch.good() & ~is_header
        self.collector.add(batch, good)
        wrong = np.flatnonzero(~good)
        if wrong.size:
            # pyarrow makes a row of empty fields of an empty line.
            wrong = wrong[LineIndex(text).lengths()[lines[wrong]] > 0]
        for rank, row in enumerate(wrong.tolist()):
            reason = ""
            if is_header[row]:
                reason = _REPEATED_HEADER
            elif rank < MAX_EXAMPLES:  # a reason takes microseconds
                fields = tuple(None if column is None else column[row].as_py() for column in texts)
                reason = bad_row_reason(fields, layout.dates)
            bad[int(lines[row])] = reason

    def _repeats_header(self, batch: RowBatch) -> NDArray[np.bool_]:
        """Return which rows repeat the header, as in concatenated files; bool (n,)."""
        layout = self.layout
        user = item = None
        if layout.names is not None and max(layout.user, layout.item) < len(layout.names):
            user = self.collector.users.get(layout.names[layout.user].strip())
            item = self.collector.items.get(layout.names[layout.item].strip())
        if user is None or item is None:
            return np.zeros(batch.users.size, np.bool_)
        is_header: NDArray[np.bool_] = (batch.users == user) & (batch.items == item)
        return is_header
