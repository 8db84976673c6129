"""How a text table is laid out: its separator, whether it has a header, and which column is which (pure).

A table has `user,item[,rating][,timestamp]` columns. With a header they are found by name, in any order, and other
columns are ignored; without one they are taken by position. The three MovieLens formats are such tables: `u.data` is
separated by tabs, `ratings.dat` by `::`, and `ratings.csv` has a header. The decision is made by the majority of the
first lines, so that a broken one among them, or before the header, does not sway it. A quoted field that spans lines
was put on one line before (`multiline.py`), except in the first lines, which are looked at as they are.
"""

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from service.errors import DataError
from service.training.data.data_request import DEFAULT_OPTIONS, ReadOptions
from service.training.data.field_values import Dates, has_decimal_comma, looks_like_time, parse_number, printable
from service.training.data.formats import foreign_files

HEAD_BYTES: Final = 1 << 16
_HEAD_LINES: Final = 200
# How remarks before the rows begin: numpy.savetxt writes the one, the KONECT collection the other.
_REMARKS: Final = ("#", "%")
# In order of preference where two would fit equally well.
_SEPARATORS: Final = {"::": "'::'", "\t": "a tab", ";": "a semicolon", "|": "a bar", ",": "a comma"}
_ADVICE: Final = (
    "call the columns user_id, item_id, rating and timestamp, or name them with --columns user=NAME,item=NAME"
)
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


# Excel's way to say in the first line what separates the fields.
_EXCEL: Final = re.compile(r'"?sep=(.)"?')


# RecBole's atomic files have the type of a column behind its name.
_RECBOLE_TYPE: Final = re.compile(r":(?:token|float)(?:_seq)?$")


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
        separator: What stands between two fields.
        n_fields: How many fields a line has.
        n_skipped_lines: Lines before the first row: blank ones, remarks and the header.
        user: Position of the user id.
        item: Position of the item id.
        rating: Position of the rating; None where every rating is 1.
        timestamp: Position of the time; None where there is none.
        unread_lines: Those of the skipped lines (0-based) that are no blank line, remark or header.
        names: The names in the header; None where there is none.
        dates: The order of day and month, see `ReadOptions.dates`.
        decimal_comma: Whether ratings have a comma before their decimals.
    """

    separator: str
    n_fields: int
    n_skipped_lines: int
    user: int
    item: int
    rating: int | None
    timestamp: int | None
    unread_lines: tuple[int, ...] = ()
    names: tuple[str, ...] | None = None
    dates: Dates = "iso"
    decimal_comma: bool = False

    @property
    def columns(self) -> Columns:
        """The positions of the columns."""
        return Columns(self.user, self.item, self.rating, self.timestamp)

    @property
    def has_quotes(self) -> bool:
        """Whether a field may stand in double quotes; MovieLens's `::` files never quote."""
        return len(self.separator) == 1


def detect(name: str, head: bytes, options: ReadOptions = DEFAULT_OPTIONS) -> Layout:
    """Find a table's layout.

    Args:
        name: The file, for messages.
        head: Its first bytes, whole lines as far as possible, without a byte order mark.
        options: How its fields are to be understood.

    Raises:
        DataError: This is not a table, or lacks a column.
    """
    foreign_files.refuse(name, head)
    numbered = [
        (number, line)
        for number, line in enumerate(head.decode("utf-8", errors="replace").replace("\r\n", "\n").split("\n"))
        if line.strip()
    ][:_HEAD_LINES]
    forced = _EXCEL.fullmatch(numbered[0][1].strip()) if numbered else None
    if forced is not None:
        del numbered[0]
    if not numbered:
        raise DataError(f"{name} holds no rows")
    lines = [line for _, line in numbered]
    if 2 * sum("\0" in line for line in lines) > len(lines):
        raise DataError(
            f"{name} is not a text in UTF-8: most of its first lines hold NUL characters; name its encoding, such as "
            "--encoding utf-16"
        )
    if len(lines) == 1 and "\r" in lines[0].strip():
        raise DataError(f"{name} ends its lines with carriage returns alone: end them with newlines")
    separator, n_fields = _separator(name, lines, None if forced is None else forced[1])
    cut = [(number, split(line, separator)) for number, line in numbered]
    while len(cut) > 1 and len(cut[0][1]) != n_fields and cut[0][1][0].lstrip().startswith(_REMARKS):
        del cut[0]
    layout = _with_header(name, cut, separator, n_fields, options) or _without_header(
        name, cut, separator, n_fields, options
    )
    ratings = [] if layout.rating is None else [row[layout.rating] for _, row in cut if len(row) == layout.n_fields]
    return replace(layout, dates=options.dates, decimal_comma=_decimal_comma(ratings, options))


def _with_header(
    name: str, cut: list[tuple[int, list[str]]], separator: str, n_fields: int, options: ReadOptions
) -> Layout | None:
    """Return the layout by the header; None if there is none."""
    rows = [row for _, row in cut]
    wanted = {} if _numbers_columns(rows[0], options) else options.column_of
    for index, row in enumerate(rows):
        columns = _by_name(row, wanted)
        if columns is not None:
            # Separators at the end of every row, though not of the header, make more fields, always empty.
            # The lines of a field that spans several tell nothing about the number of fields.
            beyond = {text for other in rows if len(other) == n_fields for text in other[len(row) :]}
            if beyond != {""} and any(text.count('"') % 2 for other in rows for text in other):
                beyond = set()
            if beyond - {""} and wanted == options.column_of:
                raise DataError(
                    f"{name}: the header has {len(row)} fields and most rows have {n_fields}: give every column a name "
                    "(R's write.table does with col.names=NA), or take columns by number, as in --columns user=2,item=3"
                )
            unread = tuple(number for number, _ in cut[:index])
            n_all = n_fields if beyond else len(row)
            if wanted == options.column_of:
                refuse_repeated(name, row, columns, wanted)
            else:
                columns = _by_number(name, n_all, options)
            return Layout(separator, n_all, cut[index][0] + 1, *columns, unread, names=tuple(row))
        if len(row) == n_fields:
            break
    return None


def _without_header(
    name: str, cut: list[tuple[int, list[str]]], separator: str, n_fields: int, options: ReadOptions
) -> Layout:
    rows = [row for _, row in cut]
    if options.columns:
        if not _numbers_columns(rows[0], options):
            raise DataError(f"{name}: {_unknown_column(rows[0], options)}")
        columns = _by_number(name, n_fields, options)
        place = columns.rating if columns.rating is not None else columns.timestamp
        # A first line with a word where there should be a number is a header of other names.
        is_header = place is not None and len(rows[0]) == n_fields and not _is_value(rows[0][place])
        names = tuple(rows[0]) if is_header else None
        return Layout(separator, n_fields, cut[0][0] + is_header, *columns, names=names)
    _refuse_header(name, rows)
    return Layout(separator, n_fields, cut[0][0], *_by_position(rows, n_fields))


def _decimal_comma(ratings: list[str], options: ReadOptions) -> bool:
    if options.decimal != "auto":
        return options.decimal == "comma"
    if any("." in text and parse_number(text) is not None for text in ratings):
        return False
    # Three digits behind each comma may as well be thousands: that is for a person to say.
    return any(has_decimal_comma(text) and len(text.strip().rpartition(",")[2]) != 3 for text in ratings)


def named_columns(name: str, names: Sequence[str], options: ReadOptions = DEFAULT_OPTIONS) -> Columns:
    """Find the columns by their names, in any order.

    Args:
        name: The file, for messages.
        names: Those that there are.
        options: Which columns were asked for.

    Raises:
        DataError: None of them is a user's, or none an item's; one that was asked for is not there, or is there twice.
    """
    if _numbers_columns(names, options):
        columns: Columns | None = _by_number(name, len(names), options)
    else:
        columns = _by_name(names, options.column_of)
        if columns is None and options.columns:
            raise DataError(f"{name}: {_unknown_column(names, options)}")
        if columns is not None:
            refuse_repeated(name, names, columns, options.column_of)
    if columns is None:
        raise DataError(f"{name} has no {_missing(names)} column, only {_listed(names)}; {_ADVICE}")
    return columns


def refuse_repeated(name: str, names: Sequence[str], columns: Columns, wanted: Mapping[str, str]) -> None:
    """Refuse names of which it cannot be told which column is meant.

    Raises:
        DataError: A column that would be taken shares its name with another.
    """
    plain = [_plain(text) for text in names]
    for role, place in zip(ALIASES, columns, strict=True):
        if place is None:
            continue
        is_wanted = role in wanted
        if list(names).count(names[place]) > 1 or (not is_wanted and plain.count(plain[place]) > 1):
            raise DataError(
                f"{name} has several columns called {printable(names[place])!r}: rename them, or take one by its "
                f"number from 1, as in --columns user={columns.user + 1},item={columns.item + 1}"
            )


def split(line: str, separator: str) -> list[str]:
    """Cut one line into its fields, as far as it can be cut."""
    if len(separator) > 1:
        return line.split(separator)
    try:
        return next(csv.reader([line], delimiter=separator, strict=True), [])
    except csv.Error:
        return line.split(separator)


def _separator(name: str, lines: list[str], forced: str | None) -> tuple[str, int]:
    """Return what separates fields, and how many there are.

    Args:
        name: The file, for messages.
        lines: Its first lines.
        forced: The separator that the file itself names; None if it names none.
    """
    best = (0, 0, "")
    for separator in _SEPARATORS if forced is None else (forced,):
        counts = Counter(len(split(line, separator)) for line in lines)
        counts.pop(1, None)
        if counts:
            n_fields, n_lines = max(counts.items(), key=lambda pair: (pair[1], pair[0]))
            if (n_lines, n_fields) > best[:2]:
                best = (n_lines, n_fields, separator)
    if not best[0]:
        *most, last = _SEPARATORS.values() if forced is None else ("", repr(forced))
        wanted = f"{', '.join(most)} or {last}" if forced is None else last
        is_spaced = forced is None and 2 * sum(len(line.split()) > 1 for line in lines) > len(lines)
        advice = "; blanks between fields are none: tr -s ' ' '\\t' makes them tabs" if is_spaced else ""
        raise DataError(f"{name} is not a table: none of its first lines has two fields separated by {wanted}{advice}")
    return best[2], best[1]


def roles(row: Sequence[str], wanted: Mapping[str, str] | None = None) -> dict[str, int | None]:
    """Return the position of each role's column in a header; None where it has none.

    Args:
        row: The names.
        wanted: By role, the name that was asked for; empty for none. Other roles are found by the usual names.
    """
    wanted = wanted or {}
    found = {role: _place(row, name) for role, name in wanted.items()}
    names = ["" if place in found.values() else _plain(text) for place, text in enumerate(row)]
    for role, aliases in ALIASES.items():
        if role not in wanted:
            found[role] = next((names.index(alias) for alias in aliases if alias in names), None)
    return {role: found[role] for role in ALIASES}


def _place(row: Sequence[str], name: str) -> int | None:
    """Return the position of a name: as it is written, else without case and signs."""
    if not name:
        return None
    stripped = [text.strip() for text in row]
    if name in stripped:
        return stripped.index(name)
    plain = [_plain(text) for text in row]
    return plain.index(_plain(name)) if _plain(name) and _plain(name) in plain else None


def _plain(text: str) -> str:
    return "".join(c for c in _RECBOLE_TYPE.sub("", text.strip()).lower() if c.isalnum())


def _by_name(row: Sequence[str], wanted: Mapping[str, str] | None = None) -> Columns | None:
    """Return the columns' positions by the header, or None where the line is no header."""
    found = roles(row, wanted)
    if any(found[role] is None for role, name in (wanted or {}).items() if name):
        return None
    if found["user"] is None or found["item"] is None:
        return None
    return Columns(found["user"], found["item"], found["rating"], found["timestamp"])


def _numbers_columns(row: Sequence[str], options: ReadOptions) -> bool:
    """Tell whether columns are asked for by number and not by a name that happens to be one."""
    given = [name for _, name in options.columns if name]
    return bool(given) and all(name.isascii() and name.isdigit() and name not in row for name in given)


def _by_number(name: str, n_fields: int, options: ReadOptions) -> Columns:
    found: dict[str, int | None] = dict.fromkeys(ALIASES)
    for role, number in options.columns:
        if number:
            place = int(number) if len(number) < 10 else 0
            if not 1 <= place <= n_fields:
                raise DataError(f"{name} has columns 1 to {n_fields}, and --columns asks for {role}={number}")
            found[role] = place - 1
    user, item = found["user"], found["item"]
    if user is None or item is None:
        raise DataError("--columns by number needs both user and item, as in --columns user=1,item=2")
    return Columns(user, item, found["rating"], found["timestamp"])


def _unknown_column(row: Sequence[str], options: ReadOptions) -> str:
    found = roles(row, options.column_of)
    missing = [f"{name!r}" for role, name in options.columns if name and found[role] is None]
    if missing:
        return f"--columns asks for {' and '.join(missing)}, and there is only {_listed(row)}"
    return f"there is no {_missing(row, options.column_of)} column, only {_listed(row)}; {_ADVICE}"


def _refuse_header(name: str, rows: list[list[str]]) -> None:
    """Refuse a first line that is a header but does not say where users and items are."""
    if len(rows[0]) > 2 and _is_value(rows[0][2]):
        return
    found = roles(rows[0])
    has_known_name = any(position is not None for position in found.values())
    # Words where the other lines have numbers: a header of names that we do not know, not a broken row.
    is_wordy = not any(c.isdigit() for text in rows[0] for c in text) and any(
        len(row) == len(rows[0]) > 2 and any(map(_is_value, row)) for row in rows[1:]
    )
    if not (has_known_name or is_wordy):
        return
    raise DataError(f"{name}: the header names no {_missing(rows[0])} column, only {_listed(rows[0])}; {_ADVICE}")


def _missing(names: Sequence[str], wanted: Mapping[str, str] | None = None) -> str:
    found = roles(names, wanted)
    return " and no ".join(role for role in ("user", "item") if found[role] is None)


def _listed(names: Sequence[str]) -> str:
    return printable(", ".join(name.strip() for name in names)[:200])


def _by_position(rows: list[list[str]], n_fields: int) -> Columns:
    rating, timestamp = (2 if n_fields > 2 else None), (3 if n_fields > 3 else None)
    if n_fields == 3:
        thirds = [row[2] for row in rows if len(row) == 3]
        if 2 * sum(map(looks_like_time, thirds)) > len(thirds):
            rating, timestamp = None, 2
    return Columns(0, 1, rating, timestamp)


def _is_value(text: str) -> bool:
    return parse_number(text) is not None or looks_like_time(text)
