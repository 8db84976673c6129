"""Parquet files of the archive: lines that can also be read as columns.

Invariant: the column `line` holds the bytes of each line without its line feed, in order, so that `read_lines` returns
exactly what `write_lines` was given. The other columns are derived from the line and can be made again from it.

DuckDB is imported here and in no other file of this package, and only when it is needed.
"""

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from telemetry.batch import EventPosition
from telemetry.errors import ArchiveError

if TYPE_CHECKING:
    import duckdb

SUFFIX: Final = ".parquet"
EXTRA: Final = "recollect[query]"

# The fields of the lines of all classes; those that a class does not have are null.
FIELDS: Final[Mapping[str, str]] = {
    "schema": "INTEGER",
    "class": "VARCHAR",
    "event_id": "VARCHAR",
    "tenant": "VARCHAR",
    "client_time": "VARCHAR",
    "received_at": "VARCHAR",
    "producer": "VARCHAR",
    "epoch": "BIGINT",
    "seq": "BIGINT",
    "request_id": "VARCHAR",
    "user_id": "VARCHAR",
    "recommendation_id": "VARCHAR",
    "type": "VARCHAR",
    "item_id": "VARCHAR",
    "value": "DOUBLE",
    "position": "INTEGER",
    "marks": "VARCHAR[]",
    "model": "VARCHAR",
    "candidate_set": "VARCHAR",
    "state_watermark": "VARCHAR",
    "events_applied": "INTEGER",
    "catalogue_watermark": "VARCHAR",
    "request": "JSON",
    "latency_ms": "DOUBLE",
    "degraded": "VARCHAR",
    "items": "JSON",
    "kind": "VARCHAR",
    "title": "VARCHAR",
    "attributes": "JSON",
    "hidden": "BOOLEAN",
    "available_from": "VARCHAR",
    "available_until": "VARCHAR",
    "of_class": "VARCHAR",
    "count": "BIGINT",
    "reason": "VARCHAR",
    "from_seq": "BIGINT",
    "to_seq": "BIGINT",
}
# The fields of a dead letter.
LETTER_FIELDS: Final[Mapping[str, str]] = {
    "letter_id": "VARCHAR",
    "at": "VARCHAR",
    "producer": "VARCHAR",
    "entry_id": "VARCHAR",
    "first_seq": "BIGINT",
    "seq": "BIGINT",
    "reason": "VARCHAR",
    "tries": "INTEGER",
    "data": "VARCHAR",
    "data_base64": "VARCHAR",
}
_ITEM: Final = "STRUCT(item_id VARCHAR, position INTEGER, score DOUBLE, source VARCHAR, propensity DOUBLE)"
_ROWS: Final = (
    '[{"item_id": "VARCHAR", "position": "INTEGER", "score": "DOUBLE", "source": "VARCHAR", "propensity": "DOUBLE"}]'
)
# Parsed once for each line, in a query of its own: within a CASE the engine would parse it for each mention.
_COLUMNS: Final = (
    '{"item_id": ["VARCHAR"], "score": ["DOUBLE"], "position": "JSON", "source": "JSON", "propensity": "JSON"}'
)
# Plain timestamps in UTC: every reader of Parquet has them, time zones only some. A leap second or an invalid client
# time becomes null; the line keeps it. The service's own times always end in Z.
_CASTS: Final[Mapping[str, str]] = {
    "client_time": "TRY_CAST({} AS TIMESTAMPTZ) AT TIME ZONE 'UTC'",
    "received_at": "TRY_CAST({} AS TIMESTAMP)",
    "available_from": "TRY_CAST({} AS TIMESTAMP)",
    "available_until": "TRY_CAST({} AS TIMESTAMP)",
    "at": "TRY_CAST({} AS TIMESTAMP)",
    # A list of structures, whether a line has them as rows (schema 1) or as columns (schema 2, `served_items.py`).
    "items": (
        f"CASE json_type({{}}) WHEN 'ARRAY' THEN from_json({{}}, '{_ROWS}') WHEN 'OBJECT' THEN CAST(list_zip("
        "item_columns.item_id,"
        " CASE json_type(item_columns.position) WHEN 'ARRAY' THEN from_json(item_columns.position, '[\"BIGINT\"]') ELSE"
        " range(CAST(item_columns.position AS BIGINT),"
        " CAST(item_columns.position AS BIGINT) + len(item_columns.item_id)) END,"
        " item_columns.score,"
        " CASE json_type(item_columns.source) WHEN 'ARRAY' THEN from_json(item_columns.source, '[\"VARCHAR\"]') ELSE"
        " list_resize([item_columns.source->>'$'], len(item_columns.item_id), item_columns.source->>'$') END,"
        " CASE json_type(item_columns.propensity) WHEN 'ARRAY'"
        " THEN from_json(item_columns.propensity, '[\"DOUBLE\"]') ELSE"
        " list_resize([CAST(item_columns.propensity AS DOUBLE)], len(item_columns.item_id),"
        " CAST(item_columns.propensity AS DOUBLE)) END"
        f") AS {_ITEM}[]) END"
    ),
}

# The lines of one row group are in memory at once; a line has one or two kilobytes.
_ROW_GROUP_LINES: Final = 20_480
_FETCH_LINES: Final = 2_000


def connect(*, threads: int = 1) -> "duckdb.DuckDBPyConnection":
    """Open an in-memory engine in UTC that loads no extension and writes nothing to disk; the caller closes it."""
    try:
        import duckdb
    except ImportError:
        raise ArchiveError(f"This needs DuckDB; install it with: pip install '{EXTRA}'.") from None
    engine = duckdb.connect(
        config={
            "threads": threads,
            "python_enable_replacements": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            # A query that exceeds memory is refused: its data must not end up in a file that no erasure searches.
            "temp_directory": "",
        }
    )
    engine.execute("SET TimeZone = 'UTC'")
    return engine


def select_list(row: str, fields: Iterable[str] = FIELDS) -> str:
    """Return the SELECT list that casts the fields of lines to the columns.

    Args:
        row: The name of a relation made by `with_items`.
    """
    return ", ".join(_CASTS.get(name, "{}").replace("{}", f'{row}."{name}"') + f' AS "{name}"' for name in fields)


def with_items(source: str, fields: Iterable[str] = FIELDS, items: str = "items") -> str:
    """Return the FROM clause that parses a served list's columns beside its fields, for `select_list`.

    Args:
        source: The FROM clause of the relation that has the fields.
        items: The name of the field `items` there.
    """
    if "items" not in fields:
        return source
    return f"(SELECT *, from_json({items}, {quoted(_COLUMNS)}) AS item_columns FROM {source})"  # noqa: S608 - our own


def write_lines(path: Path, lines: Iterable[bytes], fields: Mapping[str, str] = FIELDS) -> int:
    """Write and sync a file; the caller syncs its directory.

    Args:
        path: The new file. The plain lines are first written to a nameless file in the same folder.
        fields: The fields to make columns of, with their types.

    Returns:
        The number of lines.
    """
    with _errors_translated(path), closing(connect()) as engine, tempfile.TemporaryFile(dir=path.parent) as plain:
        count = 0
        for line in lines:
            plain.write(line)
            count += 1
        plain.flush()
        parsed = (
            "(SELECT CAST(json AS VARCHAR) AS line, from_json(json, $structure) AS fields"
            " FROM read_ndjson_objects($plain))"
        )
        engine.execute(
            f"COPY (SELECT {select_list('fields', fields)}, line FROM {with_items(parsed, fields, 'fields.items')})"  # noqa: S608 - our own names, and a quoted path
            f" TO {quoted(str(path))} (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {_ROW_GROUP_LINES},"
            " USE_TMP_FILE false)",
            {"structure": json.dumps(dict(fields)), "plain": fd_path(plain.fileno())},
        )
        path.chmod(0o600)
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    return count


def read_lines(path: Path, descriptor: int | None = None) -> Iterator[bytes]:
    """Read the lines of a file of `write_lines`, line feeds included.

    Args:
        descriptor: The same file, opened before its name was removed.
    """
    for (line,) in _rows(path, "line", str(path) if descriptor is None else fd_path(descriptor)):
        yield line.encode() + b"\n"


def read_positions(path: Path) -> Iterator[EventPosition]:
    """Read the position of each line from the columns."""
    yield from map(EventPosition._make, _rows(path, "producer, epoch, seq", str(path)))


def _rows(path: Path, columns: str, source: str) -> Iterator[Any]:
    with _errors_translated(path), closing(connect()) as engine:
        result = engine.execute(f"SELECT {columns} FROM read_parquet($source)", {"source": source})  # noqa: S608 - constants
        while rows := result.fetchmany(_FETCH_LINES):
            yield from rows


def contains_any(path: Path, requested: Mapping[str, str]) -> bool:
    """Decide from the columns whether a file may have a line to be erased (the rule of `erasure.falls_under`).

    Args:
        requested: By user id: when the erasure was requested, RFC 3339.
    """
    with _errors_translated(path), closing(connect()) as engine:
        # A time that is no timestamp matches; the caller then reads the lines.
        found = engine.execute(
            "SELECT 1 FROM read_parquet($source) AS p"
            " JOIN (SELECT unnest($users) AS user_id, unnest($times) AS at) AS e USING (user_id)"
            " WHERE coalesce(p.received_at <= TRY_CAST(e.at AS TIMESTAMP), true) LIMIT 1",
            {"source": str(path), "users": list(requested), "times": list(requested.values())},
        ).fetchone()
        return found is not None


def fd_path(descriptor: int) -> str:
    """Return a path of an open file, valid even if the file was removed."""
    return f"/proc/self/fd/{descriptor}"


@contextmanager
def _errors_translated(path: Path) -> Iterator[None]:
    """Raise `ArchiveError` for errors of DuckDB or the disk."""
    try:
        yield
    except OSError as error:
        raise ArchiveError(f"{path} cannot be read or written: {error.strerror}.") from None
    except Exception as error:
        if type(error).__module__.split(".")[0] not in {"duckdb", "_duckdb"}:
            raise
        raise ArchiveError(f"{path} cannot be read or written: {str(error).splitlines()[0].rstrip('.')}.") from None


def quoted(text: str) -> str:
    """Return a text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"
