"""Quoted fields that span lines, put on one line.

Invariants:

1. The text stays as long as it was: the newline within a field becomes a vertical tab, which no id, number or time may
   hold, so that such a field is a bad row wherever it matters.
2. A stray quote costs its own line only. Lines are joined only if together they are one row and no line between the
   first and the last could be a row of its own; everything else is left as it is, for `lines.blank_out` to name.
"""

import csv
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.training.data.field_values import parse_number, parse_time
from service.training.data.formats.lines import Lines
from service.training.data.formats.table_layout import Layout, split

JOINT: Final = b"\x0b"
# A field of more lines or bytes than this is taken for a quote that was never closed.
_MOST_LINES: Final = 1000
_MOST_BYTES: Final = 1 << 20
_QUOTE: Final = b'"'
_NEWLINE: Final = b"\n"


def joined(text: bytes, layout: Layout, *, is_last: bool) -> tuple[bytes, NDArray[np.int64], bytes]:
    """Put quoted fields that span lines on one line.

    Args:
        text: Whole lines, without carriage returns at their ends.
        layout: How they are laid out.
        is_last: Whether nothing comes behind this text.

    Returns:
        The text; int64, ascending, the lines (0-based) of `text` that are now the end of the line before them; and what
        has to stand before the text that comes next, because a field may go on there.
    """
    none = np.empty(0, np.int64)
    if not layout.has_quotes or _QUOTE not in text:
        return text, none, b""
    lines = Lines(text)
    quotes = np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == ord(_QUOTE))
    in_line = lines.of(quotes)
    counts = np.bincount(in_line)
    odd: list[int] = np.flatnonzero(counts % 2).tolist()
    if not odd:
        return text, none, b""
    edited = bytearray(text)
    ends: list[int] = []
    rest = b""
    place = 0
    while place < len(odd):
        first = odd[place]
        if not _is_open(lines.text(first), layout):
            place += 1
            continue
        if place + 1 == len(odd):
            start = lines.bounds(first)[0]
            if not is_last and len(text) - start <= _MOST_BYTES and lines.n_lines - first <= _MOST_LINES:
                rest = text[start:]
                del edited[start:]
            break
        last = odd[place + 1]
        if _is_one_row(lines, first, last, layout):
            for line in range(first, last):
                edited[lines.bounds(line)[1]] = ord(JOINT)
            ends += range(first + 1, last + 1)
            place += 2
        else:
            place += 1
    return bytes(edited), np.array(ends, dtype=np.int64), rest


def _is_open(line: bytes, layout: Layout) -> bool:
    """Tell whether a quoted field begins in a line and does not end there."""
    try:
        next(csv.reader([line.decode("utf-8", "replace")], delimiter=layout.separator, strict=True), [])
    except csv.Error as error:
        return "end of data" in str(error)
    return False


def _could_be_row(text: str, layout: Layout) -> bool:
    fields = split(text, layout.separator)
    return (
        len(fields) == layout.n_fields
        and (layout.rating is None or parse_number(fields[layout.rating].replace(",", ".")) is not None)
        and (layout.timestamp is None or parse_time(fields[layout.timestamp], layout.dates) is not None)
    )


def _is_one_row(lines: Lines, first: int, last: int, layout: Layout) -> bool:
    start, end = lines.bounds(first)[0], lines.bounds(last)[1]
    if last - first > _MOST_LINES or end - start > _MOST_BYTES:
        return False
    texts = [lines.text(line).decode("utf-8", "replace") for line in range(first, last + 1)]
    if any(_could_be_row(text, layout) for text in texts[1:-1]):
        return False
    try:
        rows = list(csv.reader([f"{text}\n" for text in texts], delimiter=layout.separator, strict=True))
    except csv.Error:
        return False
    return len(rows) == 1 and len(rows[0]) == layout.n_fields
