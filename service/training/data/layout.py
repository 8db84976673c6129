"""How a text table is laid out: its separator, whether it has a header, and which column is which (pure).

A table has `user,item[,rating][,timestamp]` columns. With a header they are found by name, in any order, and other
columns are ignored; without one they are taken by position. The three MovieLens formats are such tables: `u.data` is
separated by tabs, `ratings.dat` by `::`, and `ratings.csv` has a header. The decision is made by the majority of the
first lines, so that a broken one among them, or before the header, does not sway it. One line is one row: a quoted
field does not span lines.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from service.errors import DataError
from service.training.data.values import looks_like_time, parse_number, shown

HEAD_BYTES: Final = 1 << 16
_HEAD_LINES: Final = 200
# How remarks before the rows begin: numpy.savetxt writes the one, the KONECT collection the other.
_REMARKS: Final = ("#", "%")
# In order of preference where two would fit equally well.
_SEPARATORS: Final = {"::": "'::'", "\t": "a tab", ";": "a semicolon", "|": "a bar", ",": "a comma"}
_SUPPORTED: Final = "give a CSV, TSV, JSONL or Parquet file or a MovieLens directory"
_TEXT: Final = "convert it to UTF-8"
_ADVICE: Final = "call the columns user_id, item_id, rating and timestamp"
_MAGICS: Final = {
    b"\x1f\x8b": ("compressed with gzip", _SUPPORTED),
    b"PK\x03\x04": ("a zip archive", _SUPPORTED),
    b"BZh91AY&SY": ("compressed with bzip2", _SUPPORTED),
    b"\xfd7zXZ": ("compressed with xz", _SUPPORTED),
    b"(\xb5/\xfd": ("compressed with Zstandard", _SUPPORTED),
    b"\xff\xfe\0\0": ("encoded in UTF-32", _TEXT),
    b"\xff\xfe": ("encoded in UTF-16", _TEXT),
    b"\xfe\xff": ("encoded in UTF-16", _TEXT),
    b"[{": ("a JSON array", "write one object a line"),
    b"<!doctype": ("a web page", _SUPPORTED),
    b"<html": ("a web page", _SUPPORTED),
    b"<?xml": ("XML", _SUPPORTED),
    b"%pdf-": ("a PDF document", _SUPPORTED),
}
# Names without case and without anything but letters and digits; the first that a header has is taken.
# fmt: off
ALIASES: Final[dict[str, tuple[str, ...]]] = {
    "user": (
        "userid", "user", "useridx", "uid", "username", "customerid", "customer", "memberid", "reviewerid",
        "visitorid", "accountid", "clientid",
    ),
    "item": (
        "itemid", "item", "itemidx", "iid", "movieid", "movie", "productid", "product", "asin", "parentasin",
        "bookid", "book", "isbn", "songid", "trackid", "artistid", "articleid", "contentid", "gameid", "businessid",
        "sku", "title",
    ),
    "rating": (
        "rating", "ratings", "score", "value", "stars", "preference", "overall", "bookrating", "weight",
    ),
    "timestamp": (
        "timestamp", "ts", "time", "unixtime", "unixreviewtime", "datetime", "date", "createdat", "eventtime",
        "ratedat", "reviewtime",
    ),
}
# fmt: on


class Columns(NamedTuple):
    """Positions of the columns; None for one that there is not."""

    user: int
    item: int
    rating: int | None
    timestamp: int | None


@dataclass(frozen=True)
class Layout:
    """Where to find what in a line.

    Attributes:
        separator: what stands between two fields.
        n_fields: how many fields a line has.
        n_skipped_lines: lines before the first row: blank ones, remarks and the header.
        unread_lines: those among them (0-based) that are none of the three.
        user: position of the user id.
        item: position of the item id.
        rating: position of the rating; None where every rating is 1.
        timestamp: position of the time; None where there is none.
    """

    separator: str
    n_fields: int
    n_skipped_lines: int
    user: int
    item: int
    rating: int | None
    timestamp: int | None
    unread_lines: tuple[int, ...] = ()

    @property
    def has_quotes(self) -> bool:
        """Whether a field may stand in double quotes; MovieLens's `::` files never quote."""
        return len(self.separator) == 1


def detect(name: str, head: bytes) -> Layout:
    """Find a table's layout.

    Args:
        name: the file, for messages.
        head: its first bytes, whole lines as far as possible, without a byte order mark.

    Raises:
        DataError: this is not a table, or lacks a column.
    """
    refuse_foreign(name, head)
    numbered = [
        (number, line)
        for number, line in enumerate(head.decode("utf-8", errors="replace").replace("\r\n", "\n").split("\n"))
        if line.strip()
    ][:_HEAD_LINES]
    if not numbered:
        raise DataError(f"{name} holds no rows")
    lines = [line for _, line in numbered]
    if 2 * sum("\0" in line for line in lines) > len(lines):
        raise DataError(f"{name} is not a text in UTF-8: most of its first lines hold NUL characters")
    if len(lines) == 1 and "\r" in lines[0].strip():
        raise DataError(f"{name} ends its lines with carriage returns alone: end them with newlines")
    separator, n_fields = _separator(name, lines)
    cut = [(number, split(line, separator)) for number, line in numbered]
    while len(cut) > 1 and len(cut[0][1]) != n_fields and cut[0][1][0].lstrip().startswith(_REMARKS):
        del cut[0]
    rows = [row for _, row in cut]
    for index, row in enumerate(rows):
        columns = _by_name(row)
        if columns is not None:
            # A separator at the end of every row, though not of the header, makes one more field, always empty.
            lasts = {other[-1] for other in rows if len(other) == n_fields} if n_fields == len(row) + 1 else None
            unread = tuple(number for number, _ in cut[:index])
            return Layout(separator, len(row) + (lasts == {""}), cut[index][0] + 1, *columns, unread)
        if len(row) == n_fields:
            break
    _refuse_header(name, rows)
    return Layout(separator, n_fields, cut[0][0], *_by_position(rows, n_fields))


def refuse_foreign(name: str, head: bytes) -> None:
    """Refuse what is plainly no text of ours by how it begins.

    Args:
        name: the file, for messages.
        head: its first bytes.

    Raises:
        DataError: it is something else, and the sentence says what.
    """
    start = head.lstrip(b" \t\r\n")[:16].lower()
    for magic, (what, advice) in _MAGICS.items():
        if start.startswith(magic.lower()):
            raise DataError(f"{name} is {what}, which is not supported: {advice}")


def named_columns(name: str, names: Sequence[str]) -> Columns:
    """Find the columns by their names, in any order.

    Args:
        name: the file, for messages.
        names: those that there are.

    Raises:
        DataError: none of them is a user's, or none an item's.
    """
    columns = _by_name(names)
    if columns is None:
        raise DataError(f"{name} has no {_missing(names)} column, only {_listed(names)}; {_ADVICE}")
    return columns


def split(line: str, separator: str) -> list[str]:
    """Cut one line into its fields, as far as it can be cut."""
    if len(separator) > 1:
        return line.split(separator)
    try:
        return next(csv.reader([line], delimiter=separator, strict=True), [])
    except csv.Error:
        return line.split(separator)


def _separator(name: str, lines: list[str]) -> tuple[str, int]:
    best = (0, 0, "")
    for separator in _SEPARATORS:
        counts = Counter(len(split(line, separator)) for line in lines)
        counts.pop(1, None)
        if counts:
            n_fields, n_lines = max(counts.items(), key=lambda pair: (pair[1], pair[0]))
            if (n_lines, n_fields) > best[:2]:
                best = (n_lines, n_fields, separator)
    if not best[0]:
        *most, last = _SEPARATORS.values()
        wanted = f"{', '.join(most)} or {last}"
        raise DataError(f"{name} is not a table: none of its first lines has two fields separated by {wanted}")
    return best[2], best[1]


def roles(row: Sequence[str]) -> dict[str, int | None]:
    """Return the position of each role's column in a header; None where it has none."""
    names = ["".join(c for c in text.lower() if c.isalnum()) for text in row]
    return {
        role: next((names.index(alias) for alias in aliases if alias in names), None)
        for role, aliases in ALIASES.items()
    }


def _by_name(row: Sequence[str]) -> Columns | None:
    """Return the columns' positions by the header, or None where the line is no header."""
    found = roles(row)
    if found["user"] is None or found["item"] is None:
        return None
    return Columns(found["user"], found["item"], found["rating"], found["timestamp"])


def _refuse_header(name: str, rows: list[list[str]]) -> None:
    """Refuse a first line that is a header but does not say where users and items are."""
    if len(rows[0]) > 2 and _is_value(rows[0][2]):
        return
    found = roles(rows[0])
    has_known_name = any(position is not None for position in found.values())
    # Words where the other lines have numbers: a header of names that we do not know, not a broken row.
    is_wordy = not any(c.isdigit() for text in rows[0] for c in text) and any(
        len(row) == len(rows[0]) > 2 and _is_value(row[2]) for row in rows[1:]
    )
    if not (has_known_name or is_wordy):
        return
    raise DataError(f"{name}: the header names no {_missing(rows[0])} column, only {_listed(rows[0])}; {_ADVICE}")


def _missing(names: Sequence[str]) -> str:
    found = roles(names)
    return " and no ".join(role for role in ("user", "item") if found[role] is None)


def _listed(names: Sequence[str]) -> str:
    return shown(", ".join(name.strip() for name in names)[:200])


def _by_position(rows: list[list[str]], n_fields: int) -> Columns:
    rating, timestamp = (2 if n_fields > 2 else None), (3 if n_fields > 3 else None)
    if n_fields == 3:
        thirds = [row[2] for row in rows if len(row) == 3]
        if 2 * sum(map(looks_like_time, thirds)) > len(thirds):
            rating, timestamp = None, 2
    return Columns(0, 1, rating, timestamp)


def _is_value(text: str) -> bool:
    return parse_number(text) is not None or looks_like_time(text)
