"""Finds the columns of users, items, ratings and times by name or number, and describes the choice (pure)."""

import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from service.errors import DataError
from service.training.data.data_request import DEFAULT_OPTIONS, ReadOptions
from service.training.data.field_values import printable

ADVICE: Final = (
    "call the columns user_id, item_id, rating and timestamp, or name them with --columns user=NAME,item=NAME."
)
# Names in lower case, of letters and digits only; the first that occurs is used.
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
_MAX_COLUMNS: Final = 12
# Columns for the type of an event, by the names in exports of web shops and trackers.
# fmt: off
_EVENT_TYPE_NAMES: Final = frozenset((
    "event", "eventtype", "eventname", "action", "actiontype", "activity", "behavior", "behaviour", "behaviortype",
    "behaviourtype", "interaction", "interactiontype", "feedbacktype",
))
# fmt: on
# RecBole's atomic files append the type of a column to its name.
_RECBOLE_TYPE: Final = re.compile(r":(?:token|float)(?:_seq)?$")


class ColumnPositions(NamedTuple):
    """Positions of the columns; None for a column that the source lacks."""

    user: int
    item: int
    rating: int | None
    timestamp: int | None


def named_columns(name: str, names: Sequence[str], options: ReadOptions = DEFAULT_OPTIONS) -> ColumnPositions:
    """Return the positions by all columns' names, in any order; messages call the file `name`.

    Raises:
        DataError: There is no user or item column, or a column asked for is missing or ambiguous.
    """
    if are_numbers(names, options):
        return positions_by_number(name, len(names), options)
    columns = positions_by_name(names, options.column_of)
    if columns is None:
        if options.columns:
            raise DataError(f"{name}: {unknown_column(names, options)}")
        raise DataError(f"{name} has no {missing_roles(names)} column, only {listed(names)}; {ADVICE}")
    refuse_ambiguous(name, names, columns, options.column_of)
    return columns


def positions_by_name(row: Sequence[str], wanted: Mapping[str, str] | None = None) -> ColumnPositions | None:
    """Return the positions by a header; None if the row is no header with a user and an item column."""
    position_of = find_roles(row, wanted)
    if any(position_of[role] is None for role, name in (wanted or {}).items() if name):
        return None
    if position_of["user"] is None or position_of["item"] is None:
        return None
    return ColumnPositions(position_of["user"], position_of["item"], position_of["rating"], position_of["timestamp"])


def positions_by_number(name: str, n_fields: int, options: ReadOptions) -> ColumnPositions:
    """Return the positions of columns that are asked for by number from 1.

    Raises:
        DataError: A number is out of range, or the user or item is missing.
    """
    position_of: dict[str, int | None] = dict.fromkeys(ALIASES)
    for role, text in options.columns:
        if text:
            number = int(text) if len(text) < 10 else 0
            if not 1 <= number <= n_fields:
                raise DataError(f"{name} has columns 1 to {n_fields}, and --columns asks for {role}={text}.")
            position_of[role] = number - 1
    user, item = position_of["user"], position_of["item"]
    if user is None or item is None:
        raise DataError("--columns by number needs both user and item, as in --columns user=1,item=2.")
    return ColumnPositions(user, item, position_of["rating"], position_of["timestamp"])


def are_numbers(row: Sequence[str], options: ReadOptions) -> bool:
    """Return whether columns are asked for by number, and not by a name that is a number."""
    given = [name for _, name in options.columns if name]
    return bool(given) and all(name.isascii() and name.isdigit() and name not in row for name in given)


def find_roles(row: Sequence[str], wanted: Mapping[str, str] | None = None) -> dict[str, int | None]:
    """Return the position of each role's column in a header; None if there is none.

    `wanted` has the names asked for by role, empty for none; other roles are found by the usual names.
    """
    wanted = wanted or {}
    position_of = {role: _position(row, name) for role, name in wanted.items()}
    names = ["" if index in position_of.values() else normalised(text) for index, text in enumerate(row)]
    for role, aliases in ALIASES.items():
        if role not in wanted:
            position_of[role] = next((names.index(alias) for alias in aliases if alias in names), None)
    return {role: position_of[role] for role in ALIASES}


def refuse_ambiguous(name: str, names: Sequence[str], columns: ColumnPositions, wanted: Mapping[str, str]) -> None:
    """Refuse a header in which a column shares its name with another.

    Raises:
        DataError: A column that would be read is ambiguous.
    """
    plain = [normalised(text) for text in names]
    for role, position in zip(ALIASES, columns, strict=True):
        if position is None:
            continue
        is_repeated = list(names).count(names[position]) > 1
        if is_repeated or (role not in wanted and plain.count(plain[position]) > 1):
            raise DataError(
                f"{name} has several columns called {printable(names[position])!r}: rename them, or give the number of "
                f"one from 1, as in --columns user={columns.user + 1},item={columns.item + 1}."
            )


def unknown_column(row: Sequence[str], options: ReadOptions) -> str:
    """Return which column is asked for and missing in a header."""
    position_of = find_roles(row, options.column_of)
    missing = [f"{name!r}" for role, name in options.columns if name and position_of[role] is None]
    if missing:
        return f"--columns asks for {' and '.join(missing)}, and there is only {listed(row)}."
    return f"there is no {missing_roles(row, options.column_of)} column, only {listed(row)}; {ADVICE}"


def missing_roles(names: Sequence[str], wanted: Mapping[str, str] | None = None) -> str:
    """Return "user", "item" or "user and no item": the roles without a column."""
    position_of = find_roles(names, wanted)
    return " and no ".join(role for role in ("user", "item") if position_of[role] is None)


def listed(names: Sequence[str]) -> str:
    """Return names for a sentence, abbreviated."""
    return printable(", ".join(name.strip() for name in names)[:200])


def describe_columns(name: str, columns: ColumnPositions, names: Sequence[str] | None, n_columns: int) -> list[str]:
    """Return which column has which role, and which are ignored.

    Args:
        name: The file, printable.
        columns: The positions of the columns that are read.
        names: The names of all columns; None if the file has none.
        n_columns: How many columns there are.

    Returns:
        Sentences "name: text".
    """
    position_of = {role: position for role, position in columns._asdict().items() if position is not None}

    def label(position: int) -> str:
        column = "" if names is None or position >= len(names) else printable(names[position].strip())
        return column or f"column {position + 1}"

    missing = [role for role in ("rating", "timestamp") if role not in position_of]
    clauses = [f"{name}: {', '.join(f'{role} = {label(position)}' for role, position in position_of.items())}"]
    if missing:
        clauses.append(f"no {' and no '.join(missing)}")
    ignored = [position for position in range(n_columns) if position not in position_of.values()]
    if ignored:
        listed = ", ".join(map(label, ignored[:_MAX_COLUMNS]))
        more = f" and {len(ignored) - _MAX_COLUMNS} more" if len(ignored) > _MAX_COLUMNS else ""
        clauses.append(f"ignored: {listed}{more}")
    sentences = [f"{'; '.join(clauses)}."]
    if names is not None:
        sentences += [
            f"{name}: the column {label(position)} looks like a type of event and is ignored, so rows of every type "
            "count alike; keep the rows that are meant, or give each type a value in a rating column."
            for position in ignored
            if position < len(names) and "".join(c for c in names[position].lower() if c.isalnum()) in _EVENT_TYPE_NAMES
        ]
    return sentences


def _position(row: Sequence[str], name: str) -> int | None:
    """Return the position of a name as it is written, else of one that is equal when normalised."""
    if not name:
        return None
    stripped = [text.strip() for text in row]
    if name in stripped:
        return stripped.index(name)
    plain = [normalised(text) for text in row]
    return plain.index(normalised(name)) if normalised(name) and normalised(name) in plain else None


def normalised(text: str) -> str:
    """Return a column's name in lower case, of letters and digits only, without RecBole's type."""
    return "".join(c for c in without_type(text).lower() if c.isalnum())


def without_type(text: str) -> str:
    """Return a column's name without RecBole's type."""
    return _RECBOLE_TYPE.sub("", text.strip())
