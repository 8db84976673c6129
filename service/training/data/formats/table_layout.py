"""Detects the layout of a text table: its separator, its header and the position of each column (pure).

A table has `user,item[,rating][,timestamp]` columns. With a header they are found by name, in any order, and other
columns are ignored; without one they are found by position. The three MovieLens formats are such tables: `u.data` is
separated by tabs, `ratings.dat` by `::`, and `ratings.csv` has a header. The majority of the first lines decides, so
that a broken line among them, or before the header, does not change the layout.
"""

import csv
import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import Final

from service.errors import DataError
from service.training.data.data_request import DEFAULT_OPTIONS, ReadOptions
from service.training.data.field_values import Dates, has_decimal_comma, looks_like_time, parse_number
from service.training.data.formats import column_roles, foreign_files
from service.training.data.formats.column_roles import ColumnPositions

HEAD_BYTES: Final = 1 << 16
_HEAD_LINES: Final = 200
# The first characters of comments before the rows: numpy.savetxt writes "#", the KONECT collection "%".
_COMMENTS: Final = ("#", "%")
# In order of preference where two fit equally well.
_SEPARATORS: Final = {"::": "'::'", "\t": "a tab", ";": "a semicolon", "|": "a bar", ",": "a comma"}
# Excel declares the separator in the first line.
_EXCEL_SEPARATOR: Final = re.compile(r'"?sep=(.)"?')


@dataclass(frozen=True)
class TableLayout:
    """The layout of a text table."""

    separator: str  # between two fields
    n_fields: int  # how many fields a line has
    n_skipped_lines: int  # lines before the first row: blank lines, comments and the header
    user: int  # position of the user id
    item: int  # position of the item id
    rating: int | None  # position of the rating; None if every rating is 1
    timestamp: int | None  # position of the time; None if there is none
    unread_lines: tuple[int, ...] = ()  # skipped lines (0-based) that are no blank line, comment or header
    names: tuple[str, ...] | None = None  # the names in the header; None without a header
    dates: Dates = "iso"  # the order of day and month, see `ReadOptions.dates`
    decimal_comma: bool = False  # whether ratings have a comma before their decimals

    @property
    def columns(self) -> ColumnPositions:
        """The positions of the columns."""
        return ColumnPositions(self.user, self.item, self.rating, self.timestamp)

    @property
    def has_quotes(self) -> bool:
        """Whether fields may be quoted; MovieLens's `::` files never quote."""
        return len(self.separator) == 1


# The fields of a line, and its number (0-based).
_SplitLine = tuple[int, list[str]]


def detect(name: str, head: bytes, options: ReadOptions = DEFAULT_OPTIONS) -> TableLayout:
    """Detect a table's layout.

    Args:
        name: The file, for messages.
        head: Its first bytes, whole lines as far as possible, without a byte order mark.
        options: How its fields are read.

    Raises:
        DataError: This is not a table, or lacks a column.
    """
    foreign_files.refuse(name, head)
    numbered = [
        (number, line)
        for number, line in enumerate(head.decode("utf-8", errors="replace").replace("\r\n", "\n").split("\n"))
        if line.strip()
    ][:_HEAD_LINES]
    declared = _EXCEL_SEPARATOR.fullmatch(numbered[0][1].strip()) if numbered else None
    if declared is not None:
        del numbered[0]
    if not numbered:
        raise DataError(f"{name} holds no rows.")
    lines = [line for _, line in numbered]
    if 2 * sum("\0" in line for line in lines) > len(lines):
        raise DataError(
            f"{name} is not a text in UTF-8: most of its first lines hold NUL characters; name its encoding, such as "
            "--encoding utf-16."
        )
    if len(lines) == 1 and "\r" in lines[0].strip():
        raise DataError(f"{name} ends its lines with carriage returns alone: end them with newlines.")
    separator, n_fields = _separator(name, lines, None if declared is None else declared[1])
    rows = [(number, split_fields(line, separator)) for number, line in numbered]
    while len(rows) > 1 and len(rows[0][1]) != n_fields and rows[0][1][0].lstrip().startswith(_COMMENTS):
        del rows[0]
    layout = _with_header(name, rows, separator, n_fields, options) or _without_header(
        name, rows, separator, n_fields, options
    )
    ratings = [] if layout.rating is None else [row[layout.rating] for _, row in rows if len(row) == layout.n_fields]
    return replace(layout, dates=options.dates, decimal_comma=_has_decimal_commas(ratings, options))


def split_fields(line: str, separator: str) -> list[str]:
    """Return the fields of one line; without regard to quotes if these are broken."""
    if len(separator) > 1:
        return line.split(separator)
    try:
        return next(csv.reader([line], delimiter=separator, strict=True), [])
    except csv.Error:
        return line.split(separator)


def _with_header(
    name: str, numbered: list[_SplitLine], separator: str, n_fields: int, options: ReadOptions
) -> TableLayout | None:
    """Return the layout by the header; None if there is none."""
    rows = [row for _, row in numbered]
    is_by_name = not column_roles.are_numbers(rows[0], options)
    wanted = options.column_of if is_by_name else {}
    for index, row in enumerate(rows):
        columns = column_roles.positions_by_name(row, wanted)
        if columns is not None:
            # Separators at the end of every row but not of the header make additional fields, which are empty.
            # Lines of a multi-line field do not show the number of fields.
            beyond = {text for other in rows if len(other) == n_fields for text in other[len(row) :]}
            if beyond != {""} and any(text.count('"') % 2 for other in rows for text in other):
                beyond = set()
            if beyond - {""} and is_by_name:
                raise DataError(
                    f"{name}: the header has {len(row)} fields and most rows have {n_fields}: give every column a name "
                    "(R's write.table does with col.names=NA), or name columns by number, as in --columns "
                    "user=2,item=3."
                )
            unread = tuple(number for number, _ in numbered[:index])
            n_all = n_fields if beyond else len(row)
            if is_by_name:
                column_roles.refuse_ambiguous(name, row, columns, wanted)
            else:
                columns = column_roles.positions_by_number(name, n_all, options)
            return TableLayout(separator, n_all, numbered[index][0] + 1, *columns, unread, names=tuple(row))
        if len(row) == n_fields:
            break
    return None


def _without_header(
    name: str, numbered: list[_SplitLine], separator: str, n_fields: int, options: ReadOptions
) -> TableLayout:
    rows = [row for _, row in numbered]
    first_line = numbered[0][0]
    if options.columns:
        if not column_roles.are_numbers(rows[0], options):
            raise DataError(f"{name}: {column_roles.unknown_column(rows[0], options)}")
        columns = column_roles.positions_by_number(name, n_fields, options)
        numeric = columns.rating if columns.rating is not None else columns.timestamp
        # A first line with a word in a numeric column is a header with unknown names.
        is_header = numeric is not None and len(rows[0]) == n_fields and not _is_value(rows[0][numeric])
        names = tuple(rows[0]) if is_header else None
        return TableLayout(separator, n_fields, first_line + is_header, *columns, names=names)
    _refuse_unknown_header(name, rows)
    return TableLayout(separator, n_fields, first_line, *_by_position(rows, n_fields))


def _by_position(rows: list[list[str]], n_fields: int) -> ColumnPositions:
    rating, timestamp = (2 if n_fields > 2 else None), (3 if n_fields > 3 else None)
    if n_fields == 3:
        thirds = [row[2] for row in rows if len(row) == 3]
        if 2 * sum(map(looks_like_time, thirds)) > len(thirds):
            rating, timestamp = None, 2
    return ColumnPositions(0, 1, rating, timestamp)


def _refuse_unknown_header(name: str, rows: list[list[str]]) -> None:
    """Refuse a first line that is a header without a user or item column."""
    header = rows[0]
    if len(header) > 2 and _is_value(header[2]):
        return
    has_known_name = any(position is not None for position in column_roles.find_roles(header).values())
    # Words above numbers are a header of unknown names, not a broken row.
    is_wordy = not any(c.isdigit() for text in header for c in text) and any(
        len(row) == len(header) > 2 and any(map(_is_value, row)) for row in rows[1:]
    )
    if has_known_name or is_wordy:
        missing, names = column_roles.missing_roles(header), column_roles.listed(header)
        raise DataError(f"{name}: the header names no {missing} column, only {names}; {column_roles.ADVICE}")


def _has_decimal_commas(ratings: list[str], options: ReadOptions) -> bool:
    if options.decimal != "auto":
        return options.decimal == "comma"
    if any("." in text and parse_number(text) is not None for text in ratings):
        return False
    # Three digits after each comma may be thousands, so they decide nothing.
    return any(has_decimal_comma(text) and len(text.strip().rpartition(",")[2]) != 3 for text in ratings)


def _separator(name: str, lines: list[str], declared: str | None) -> tuple[str, int]:
    """Return the separator, the declared one if the file declares it, and how many fields it makes."""
    best = (0, 0, "")
    for separator in _SEPARATORS if declared is None else (declared,):
        counts = Counter(len(split_fields(line, separator)) for line in lines)
        counts.pop(1, None)
        if counts:
            n_fields, n_lines = max(counts.items(), key=lambda pair: (pair[1], pair[0]))
            if (n_lines, n_fields) > best[:2]:
                best = (n_lines, n_fields, separator)
    if not best[0]:
        *most, last = _SEPARATORS.values()
        wanted = f"{', '.join(most)} or {last}" if declared is None else repr(declared)
        is_spaced = declared is None and 2 * sum(len(line.split()) > 1 for line in lines) > len(lines)
        advice = "; blanks do not separate fields: tr -s ' ' '\\t' makes them tabs" if is_spaced else ""
        raise DataError(f"{name} is not a table: none of its first lines has two fields separated by {wanted}{advice}.")
    return best[2], best[1]


def _is_value(text: str) -> bool:
    return parse_number(text) is not None or looks_like_time(text)
