"""Prepares the lines of a text table for pyarrow: joins multi-line fields, and blanks lines that it cannot parse.

Invariants:

1. The text keeps its length. A newline within a joined field becomes a vertical tab, which no id, number or time may
   hold, so that such a field makes a bad row if its column is read. A blanked line stays at its place.
2. A stray quote affects its own line only. Lines are joined only if together they are one row and no line between the
   first and the last could be a row of its own.
3. The result is UTF-8 without a carriage return within a line, and every quoted field ends on its own line.
"""

import csv
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.training.data.field_values import parse_number, parse_time
from service.training.data.formats.table_layout import TableLayout, split_fields

NOT_UTF8: Final = "bytes that are not UTF-8"
_JOINT: Final = b"\x0b"
# A field of more lines or bytes than this has a quote that was never closed.
_MAX_FIELD_LINES: Final = 1000
_MAX_FIELD_BYTES: Final = 1 << 20
_QUOTE: Final = b'"'
_NEWLINE: Final = b"\n"
_RETURN: Final = b"\r"


class LineIndex:
    """Where the lines of a text begin and end; lines count from 0."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        ends = np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == ord(_NEWLINE))
        self._ends = ends if text.endswith(_NEWLINE) else np.append(ends, len(text))

    @property
    def n_lines(self) -> int:
        """How many lines there are."""
        return int(self._ends.size)

    def of(self, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the line of each offset in the text, int64 (n,)."""
        return np.searchsorted(self._ends, offsets)

    def bounds(self, line: int) -> tuple[int, int]:
        """Return the offsets of a line's start and of its newline, or of the text's end."""
        return (int(self._ends[line - 1]) + 1 if line else 0), int(self._ends[line])

    def text(self, line: int) -> bytes:
        """Return a line without its newline."""
        start, end = self.bounds(line)
        return self._text[start:end]

    def lengths(self) -> NDArray[np.int64]:
        """Return the lengths of all lines without newlines, int64 (n_lines,), in bytes."""
        return np.diff(self._ends, prepend=-1) - 1


def join_multiline_fields(text: bytes, layout: TableLayout, *, is_last: bool) -> tuple[bytes, NDArray[np.int64], bytes]:
    """Put quoted fields that span lines on one line.

    Args:
        text: Whole lines, without carriage returns at their ends.
        layout: Their layout.
        is_last: Whether no text follows.

    Returns:
        The text; the lines (0-based) of `text` that are now joined to the line before, int64, ascending; and the end of
        `text` that the caller has to put before the next text, because a field may continue there.
    """
    none = np.empty(0, np.int64)
    if not layout.has_quotes or _QUOTE not in text:
        return text, none, b""
    lines = LineIndex(text)
    quotes = np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == ord(_QUOTE))
    odd: list[int] = np.flatnonzero(np.bincount(lines.of(quotes)) % 2).tolist()
    if not odd:
        return text, none, b""
    edited = bytearray(text)
    joined: list[int] = []
    rest = b""
    index = 0
    while index < len(odd):
        first = odd[index]
        if not _has_open_field(lines.text(first), layout):
            index += 1
            continue
        if index + 1 == len(odd):
            start = lines.bounds(first)[0]
            if not is_last and len(text) - start <= _MAX_FIELD_BYTES and lines.n_lines - first <= _MAX_FIELD_LINES:
                rest = text[start:]
                del edited[start:]
            break
        last = odd[index + 1]
        if _is_one_row(lines, first, last, layout):
            for line in range(first, last):
                edited[lines.bounds(line)[1]] = ord(_JOINT)
            joined += range(first + 1, last + 1)
            index += 2
        else:
            index += 1
    return bytes(edited), np.array(joined, dtype=np.int64), rest


def blank_unparsable_lines(text: bytes, layout: TableLayout) -> tuple[bytes, dict[int, str]]:
    """Overwrite with blanks the lines that pyarrow cannot parse; a text without any costs one scan.

    Returns:
        The text, and the reason for each blanked line (0-based).
    """
    bad: dict[int, str] = {}
    if _RETURN in text:
        offsets = np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == ord(_RETURN))
        with_returns = np.unique(LineIndex(text).of(offsets)).tolist()
        bad |= dict.fromkeys(with_returns, "a carriage return within the line")
    if not text.isascii() and not _is_utf8(text):
        lines = LineIndex(text)
        for line in np.unique(lines.of(np.flatnonzero(np.frombuffer(text, dtype=np.uint8) >= 0x80))).tolist():
            if not _is_utf8(lines.text(line)):
                bad[line] = NOT_UTF8
    if layout.has_quotes and _QUOTE in text:
        lines = LineIndex(text)
        for line in _irregularly_quoted(text, lines, layout.separator):
            try:
                _parse_strictly(lines.text(line), layout)
            except csv.Error:
                bad.setdefault(line, "a quoted field that does not end where it should")
    if bad:
        lines = LineIndex(text)
        edited = bytearray(text)
        for line in bad:
            start, end = lines.bounds(line)
            edited[start:end] = b" " * (end - start)
        text = bytes(edited)
    return text, bad


def _parse_strictly(line: bytes, layout: TableLayout) -> None:
    next(csv.reader([line.decode("utf-8", "replace")], delimiter=layout.separator, strict=True), [])


def _has_open_field(line: bytes, layout: TableLayout) -> bool:
    """Return whether a quoted field begins in a line and does not end there."""
    try:
        _parse_strictly(line, layout)
    except csv.Error as error:
        return "end of data" in str(error)
    return False


def _could_be_row(text: str, layout: TableLayout) -> bool:
    fields = split_fields(text, layout.separator)
    return (
        len(fields) == layout.n_fields
        and (layout.rating is None or parse_number(fields[layout.rating].replace(",", ".")) is not None)
        and (layout.timestamp is None or parse_time(fields[layout.timestamp], layout.dates) is not None)
    )


def _is_one_row(lines: LineIndex, first: int, last: int, layout: TableLayout) -> bool:
    start, end = lines.bounds(first)[0], lines.bounds(last)[1]
    if last - first > _MAX_FIELD_LINES or end - start > _MAX_FIELD_BYTES:
        return False
    texts = [lines.text(line).decode("utf-8", "replace") for line in range(first, last + 1)]
    if any(_could_be_row(text, layout) for text in texts[1:-1]):
        return False
    try:
        rows = list(csv.reader([f"{text}\n" for text in texts], delimiter=layout.separator, strict=True))
    except csv.Error:
        return False
    return len(rows) == 1 and len(rows[0]) == layout.n_fields


def _irregularly_quoted(text: bytes, lines: LineIndex, separator: str) -> list[int]:
    """Return the lines (0-based) whose quotes are not pairs around whole fields."""
    bytes_ = np.frombuffer(text, dtype=np.uint8)
    quotes = np.flatnonzero(bytes_ == ord(_QUOTE))
    line = lines.of(quotes)
    is_first = np.diff(line, prepend=-1) != 0
    rank = np.arange(quotes.size) - np.flatnonzero(is_first)[np.cumsum(is_first) - 1]
    edges = np.isin(bytes_, np.frombuffer(f"{separator}\n".encode(), dtype=np.uint8))
    edges = np.concatenate([[True], edges, [True]])
    # Within a line quotes open and close in turn: an opening one follows an edge, a closing one precedes one.
    is_regular = edges[np.where(rank % 2 == 0, quotes, quotes + 2)]
    is_unpaired = np.bincount(line) % 2 == 1
    irregular: list[int] = np.union1d(line[~is_regular], np.flatnonzero(is_unpaired)).tolist()
    return irregular


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
