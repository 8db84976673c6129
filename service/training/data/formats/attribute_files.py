"""Reads files of users and items that lie beside the interactions: a row for each, with an id and attributes.

They are called `users` and `items`, with the suffix of a table, of JSON lines or of Parquet, packed or not; beside
RecBole's `NAME.inter` also `NAME.user` and `NAME.item`.

Invariant: nothing here ends a run. A file or row that cannot be read becomes a note.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import orjson

from service.errors import DataError
from service.models.items.record import AttributeValue
from service.training.data.data_request import ReadOptions
from service.training.data.field_values import id_text, parse_id, printable
from service.training.data.files.text_file import BYTE_ORDER_MARK, open_text
from service.training.data.formats import attribute_columns, column_roles
from service.training.data.sources import DataFile, Role, Source, detect_format, side_file
from service.training.interactions import ItemCatalogue, UserCatalogue

_SEPARATORS: Final = ("::", "\t", ";", ",", "|")
# The names of an id in a file of its own.
_PLAIN_ID: Final = "id"
_TITLES: Final = ("title", "name", "movietitle", "itemtitle", "itemname", "productname", "producttitle", "booktitle")
_TITLE_LIMIT: Final = 512
# Of a line of `recollect items import`.
_NOT_ATTRIBUTES: Final = frozenset({"attributes", "hidden", "available_from", "available_until"})
_PARQUET_ROWS: Final = 1 << 16


class _Table(NamedTuple):
    """The rows of a file.

    Attributes:
        columns: The names of the columns.
        rows: The values by column; None where a row has none.
        is_typed: Whether values have types; else they are texts.
        n_broken: Rows that could not be read.
    """

    columns: list[str]
    rows: list[Sequence[object]]
    is_typed: bool
    n_broken: int


class _Records(NamedTuple):
    """The records of a file, by id.

    Attributes:
        titles: Those that there are.
        attributes: Of every record, by name.
        names: The names of the attributes.
        n_nameless: Rows without an id.
    """

    titles: dict[str, str]
    attributes: dict[str, dict[str, AttributeValue]]
    names: tuple[str, ...] = ()
    n_nameless: int = 0


def read_catalogues(source: Source, options: ReadOptions) -> tuple[ItemCatalogue, UserCatalogue, list[str]]:
    """Read the users and items beside the files of a source, and return one sentence on each file."""
    notes: list[str] = []
    items, users = _read(source, "item", options, notes), _read(source, "user", options, notes)
    return ItemCatalogue(items.titles, items.attributes), UserCatalogue(users.attributes), notes


def _read(source: Source, role: Role, options: ReadOptions, notes: list[str]) -> _Records:
    nothing = _Records({}, {})
    file = side_file(source, role)
    if file is None:
        return nothing
    try:
        table = _table(file, options)
        records = _records(table, role)
    except (DataError, OSError, ValueError, csv.Error) as error:
        notes.append(f"{file.short_name} was not read, so there are no attributes of {role}s: {_reason(error)}.")
        return nothing
    names = printable(", ".join(records.names)) or "none"
    notes.append(f"{file.short_name}: attributes of {len(records.attributes):,} {role}s: {names}.")
    if n_left_out := table.n_broken + records.n_nameless:
        notes.append(f"{file.short_name}: {n_left_out:,} rows are broken or have no id and were left out.")
    return records


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return printable(str(error)).rstrip(".")


def _records(table: _Table, role: Role) -> _Records:
    """Return the records of a table; of an id that occurs twice the last one counts."""
    normalised = [column_roles.normalised(column) for column in table.columns]
    id_names = [name for name in column_roles.ALIASES[role] if name not in _TITLES]
    position = next((normalised.index(name) for name in (*id_names, _PLAIN_ID) if name in normalised), None)
    if position is None:
        raise DataError(f"It has no column {role}_id, only {column_roles.listed(table.columns)}.")
    title = next((normalised.index(name) for name in _TITLES if role == "item" and name in normalised), None)
    names = attribute_columns.chosen_columns(table.columns, {position} | ({title} if title is not None else set()))
    values_of = {name: _values(table, place, table.columns[place]) for place, name in names.items()}
    titles: dict[str, str] = {}
    attributes: dict[str, dict[str, AttributeValue]] = {}
    n_nameless = 0
    for row, fields in enumerate(table.rows):
        id_ = parse_id(id_text(fields[position]) or "")
        if id_ is None:
            n_nameless += 1
            continue
        found = {name: value for name, values in values_of.items() if (value := values[row]) is not None}
        attributes[id_] = found
        text = fields[title] if title is not None else None
        if isinstance(text, str) and text.strip():
            titles[id_] = text.strip()[:_TITLE_LIMIT]
    return _Records(titles, attributes, tuple(names.values()), n_nameless)


def _values(table: _Table, place: int, column: str) -> list[AttributeValue | None]:
    if table.is_typed:
        return [attribute_columns.typed_value(fields[place]) for fields in table.rows]
    return attribute_columns.typed_texts([str(fields[place] or "").strip() for fields in table.rows], column)


def _table(file: DataFile, options: ReadOptions) -> _Table:
    match detect_format(file, options):
        case "parquet":
            return _parquet(file.path)
        case "jsonl":
            return _json_lines(_text(file.path, options).split(b"\n"))
        case _:
            return _text_table(_text(file.path, options).decode("utf-8", "replace"))


def _text(path: Path, options: ReadOptions) -> bytes:
    with open_text(path, options.encoding) as text:
        return b"".join(iter(lambda: text.read(1 << 20), b"")).removeprefix(BYTE_ORDER_MARK)


def _parquet(path: Path) -> _Table:
    # Imported here, because most data has no such file.
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        source = pq.ParquetFile(path)
        columns = list(source.schema_arrow.names)
        rows: list[Sequence[object]] = []
        for batch in source.iter_batches(_PARQUET_ROWS, use_threads=False):
            rows += zip(*(column.to_pylist() for column in batch.columns), strict=True)
    except pa.ArrowException as error:
        raise DataError(f"{path.name} is no whole Parquet file: {str(error).splitlines()[0][:200]}.") from error
    return _Table(columns, rows, is_typed=True, n_broken=0)


def _json_lines(lines: Iterable[bytes]) -> _Table:
    objects: list[dict[str, object]] = []
    n_broken = 0
    for line in lines:
        if not line.strip():
            continue
        try:
            parsed = orjson.loads(line)
        except orjson.JSONDecodeError:
            n_broken += 1
            continue
        if isinstance(parsed, dict):
            objects.append(_flat(parsed))
        else:
            n_broken += 1
    columns = list(dict.fromkeys(name for parsed in objects for name in parsed))
    return _Table(
        columns, [[parsed.get(name) for name in columns] for parsed in objects], is_typed=True, n_broken=n_broken
    )


def _flat(parsed: dict[str, object]) -> dict[str, object]:
    """Return an object with the entries of its `attributes`, as `recollect items import` has them, as its own."""
    nested = parsed.get("attributes")
    if not isinstance(nested, dict):
        return parsed
    return {**nested, **{name: value for name, value in parsed.items() if name not in _NOT_ATTRIBUTES}}


def _text_table(text: str) -> _Table:
    lines = io.StringIO(text, newline="")
    header = lines.readline().rstrip("\r\n")
    separator = max(_SEPARATORS, key=header.count)
    columns = next(_split(iter([header]), separator), [])
    if len(columns) < 2:
        raise DataError("Its first line names no two columns.")
    rows: list[Sequence[object]] = []
    n_broken = 0
    for fields in _split(lines, separator):
        if len(fields) == len(columns):
            rows.append(fields)
        elif any(fields):
            n_broken += 1
    return _Table(columns, rows, is_typed=False, n_broken=n_broken)


def _split(lines: Iterator[str], separator: str) -> Iterator[list[str]]:
    if len(separator) > 1:
        yield from (line.rstrip("\r\n").split(separator) for line in lines)
    else:
        yield from csv.reader(lines, delimiter=separator)
