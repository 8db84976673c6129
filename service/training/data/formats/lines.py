"""The lines of a text, and those among them that a parser of tables would stumble over.

Invariant: `blank_out` keeps every line at its place and of its length. What it lets through is UTF-8 without a carriage
return within a line, and every quoted field ends on its own line; without anything to take out it costs a scan.
"""

import csv
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.training.data.formats.table_layout import Layout

NOT_UTF8: Final = "bytes that are not UTF-8"
_QUOTE: Final = b'"'
_NEWLINE: Final = b"\n"
_RETURN: Final = b"\r"


class Lines:
    """Where the lines of a text begin and end; lines count from 0."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        ends = np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == ord(_NEWLINE))
        self._ends = ends if text.endswith(_NEWLINE) else np.append(ends, len(text))

    @property
    def n_lines(self) -> int:
        """How many lines there are."""
        return int(self._ends.size)

    def of(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the line of each position in the text, int64 (n,)."""
        return np.searchsorted(self._ends, positions)

    def bounds(self, line: int) -> tuple[int, int]:
        """Return where a line starts and where its newline, or the text's end, is."""
        return (int(self._ends[line - 1]) + 1 if line else 0), int(self._ends[line])

    def text(self, line: int) -> bytes:
        """Return a line without its newline."""
        start, end = self.bounds(line)
        return self._text[start:end]

    def lengths(self) -> NDArray[np.int64]:
        """Return the lengths of all lines without newlines, int64 (n_lines,), in bytes."""
        return np.diff(self._ends, prepend=-1) - 1


def blank_out(text: bytes, layout: Layout) -> tuple[bytes, dict[int, str]]:
    """Overwrite with blanks the lines that pyarrow cannot take.

    Args:
        text: Lines that end with a newline, perhaps without the last.
        layout: The separator, and whether there are quotes.

    Returns:
        The text, as long as before, and the reason for each line (0-based) that is now blank.
    """
    bad: dict[int, str] = {}
    if _RETURN in text:
        bad |= dict.fromkeys(_lines_with(text, _RETURN), "a carriage return within the line")
    if not text.isascii() and not _is_utf8(text):
        lines = Lines(text)
        for line in np.unique(lines.of(np.flatnonzero(np.frombuffer(text, dtype=np.uint8) >= 0x80))).tolist():
            if not _is_utf8(lines.text(line)):
                bad[line] = NOT_UTF8
    if layout.has_quotes and _QUOTE in text:
        lines = Lines(text)
        for line in _intricately_quoted(text, lines, layout.separator):
            try:
                next(csv.reader([lines.text(line).decode("utf-8", "replace")], delimiter=layout.separator, strict=True))
            except csv.Error:
                bad.setdefault(line, "a quoted field that does not end where it should")
    if bad:
        lines = Lines(text)
        edited = bytearray(text)
        for line in bad:
            start, end = lines.bounds(line)
            edited[start:end] = b" " * (end - start)
        text = bytes(edited)
    return text, bad


def _intricately_quoted(text: bytes, lines: Lines, separator: str) -> list[int]:
    """Return the lines (0-based) whose quotes are not plainly pairs around whole fields."""
    bytes_ = np.frombuffer(text, dtype=np.uint8)
    quotes = np.flatnonzero(bytes_ == ord(_QUOTE))
    line = lines.of(quotes)
    is_first = np.diff(line, prepend=-1) != 0
    rank = np.arange(quotes.size) - np.flatnonzero(is_first)[np.cumsum(is_first) - 1]
    edges = np.isin(bytes_, np.frombuffer(f"{separator}\n".encode(), dtype=np.uint8))
    edges = np.concatenate([[True], edges, [True]])
    # Within a line quotes must open and close in turn: an opening one follows an edge, a closing one precedes one.
    plain = edges[np.where(rank % 2 == 0, quotes, quotes + 2)]
    unpaired = np.bincount(line) % 2 == 1
    found: list[int] = np.union1d(line[~plain], np.flatnonzero(unpaired)).tolist()
    return found


def _lines_with(text: bytes, byte: bytes) -> list[int]:
    positions = np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == ord(byte))
    found: list[int] = np.unique(Lines(text).of(positions)).tolist()
    return found


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
