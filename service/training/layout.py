"""How a text table is laid out: its separator, whether it has a header, and which column is which (pure).

A table has `user,item[,rating][,timestamp]` columns. With a header they are found by name, in any order, and other
columns are ignored; without one they are taken by position. The three MovieLens formats are such tables: `u.data` is
separated by tabs, `ratings.dat` by `::`, and `ratings.csv` has a header. The decision is made by the majority of the
first lines, so that a broken one among them does not sway it. One line is one row: a quoted field does not span lines.
"""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass
from typing import Final, NamedTuple

from service.errors import DataError
from service.training.values import looks_like_time, parse_number

HEAD_BYTES: Final = 1 << 16
_HEAD_LINES: Final = 200
# In order of preference where two would fit equally well.
_SEPARATORS: Final = {"::": "'::'", "\t": "a tab", ";": "a semicolon", "|": "a bar", ",": "a comma"}
_MAGICS: Final = {
    b"PAR1\x15": "a Parquet file",
    b"\x1f\x8b": "compressed with gzip",
    b"PK\x03\x04": "a zip archive",
    b"BZh91AY&SY": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"(\xb5/\xfd": "compressed with Zstandard",
    b"\xff\xfe": "encoded in UTF-16",
    b"\xfe\xff": "encoded in UTF-16",
    b"{": "JSON",
    b"[{": "JSON",
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


class _Columns(NamedTuple):
    """Positions of the columns, as `Layout` has them."""

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
        n_skipped_lines: lines before the first row: blank ones and the header.
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
    for magic, what in _MAGICS.items():
        if head.lstrip()[: len(magic)] == magic:
            raise DataError(
                f"{name} is {what}, which is not supported: give a CSV or TSV file or a MovieLens directory"
            )
    numbered = [
        (number, line)
        for number, line in enumerate(head.decode("utf-8", errors="replace").replace("\r\n", "\n").split("\n"))
        if line.strip()
    ][:_HEAD_LINES]
    if not numbered:
        raise DataError(f"{name} holds no rows")
    lines = [line for _, line in numbered]
    separator, n_fields = _separator(name, lines)
    rows = [split(line, separator) for line in lines]
    columns = _by_name(name, rows)
    if columns is not None:
        return Layout(separator, len(rows[0]), numbered[0][0] + 1, *columns)
    return Layout(separator, n_fields, numbered[0][0], *_by_position(rows, n_fields))


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
        wanted = ", ".join(_SEPARATORS.values())
        raise DataError(f"{name} is not a table: none of its first lines has two fields separated by {wanted}")
    return best[2], best[1]


def _by_name(name: str, rows: list[list[str]]) -> _Columns | None:
    """Return the columns' positions by the header, or None where there is no header."""
    names = ["".join(c for c in text.lower() if c.isalnum()) for text in rows[0]]
    found = {
        role: next((names.index(alias) for alias in aliases if alias in names), None)
        for role, aliases in ALIASES.items()
    }
    if found["user"] is not None and found["item"] is not None:
        return _Columns(found["user"], found["item"], found["rating"], found["timestamp"])
    if len(rows[0]) > 2 and _is_value(rows[0][2]):
        return None
    has_known_name = any(position is not None for position in found.values())
    # Words where the other lines have numbers: a header of names that we do not know, not a broken row.
    is_wordy = not any(c.isdigit() for text in rows[0] for c in text) and any(
        len(row) == len(rows[0]) > 2 and _is_value(row[2]) for row in rows[1:]
    )
    if not (has_known_name or is_wordy):
        return None
    missing = " and no ".join(role for role in ("user", "item") if found[role] is None)
    raise DataError(
        f"{name}: the header names no {missing} column, only {', '.join(text.strip() for text in rows[0])[:200]}; "
        f"call the columns user_id, item_id, rating and timestamp"
    )


def _by_position(rows: list[list[str]], n_fields: int) -> _Columns:
    rating, timestamp = (2 if n_fields > 2 else None), (3 if n_fields > 3 else None)
    if n_fields == 3:
        thirds = [row[2] for row in rows if len(row) == 3]
        if 2 * sum(map(looks_like_time, thirds)) > len(thirds):
            rating, timestamp = None, 2
    return _Columns(0, 1, rating, timestamp)


def _is_value(text: str) -> bool:
    return parse_number(text) is not None or looks_like_time(text)
