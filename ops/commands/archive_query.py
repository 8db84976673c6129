"""`recollect archive query`: SQL over the archive at one moment.

Invariant: a query sees committed lines only, and can neither change anything nor reach anything else. The engine gets
the archive's open files; every other file, the network and its own settings are locked, and it accepts one SELECT.
"""

import csv
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import duckdb

from ops.console.csv_cell import csv_cell
from ops.console.table import table
from ops.console.terminal import data_stream
from service.errors import RunError, UsageError
from telemetry.archive.archive_snapshot import ArchiveSnapshot, OpenFile, open_snapshot
from telemetry.archive.parquet_file import FIELDS, LETTER_FIELDS, connect, fd_path, quoted, select_list, with_items
from telemetry.errors import ArchiveError

QueryFormat: TypeAlias = Literal["table", "json", "csv"]

_COMMON: Final = ("event_id", "tenant", "client_time", "received_at", "producer", "epoch", "seq")
# The columns of each class and of the view with its name.
COLUMNS: Final = {
    "served": (
        *(*_COMMON, "request_id", "recommendation_id", "user_id", "model", "candidate_set"),
        *("state_watermark", "events_applied", "catalogue_watermark", "request", "latency_ms", "degraded", "items"),
    ),
    "feedback": (
        *(*_COMMON, "request_id", "type", "user_id", "item_id", "value", "recommendation_id", "position", "marks"),
    ),
    "system": (*_COMMON, "kind", "of_class", "count", "reason", "from_seq", "to_seq", "user_id"),
    "item": (
        *(*_COMMON, "request_id", "kind", "item_id", "title", "attributes", "hidden"),
        *("available_from", "available_until"),
    ),
}
ALL_COLUMNS: Final = tuple(name for name in FIELDS if name != "schema")
_ITEMS: Final = (
    "SELECT event_id, recommendation_id, received_at, user_id, model, degraded, unnest(items, recursive := true)"
    " FROM served"
)
_FETCH_ROWS: Final = 1_000
_MOST_TABLE_ROWS: Final = 1_000
_COPY_BYTES: Final = 1024 * 1024


def query(root: Path, sql: str, form: QueryFormat) -> int:
    """Print the result of a query; returns the exit code.

    Args:
        sql: One SELECT over the views events, served, feedback, item, items, system and dead_letters.
        form: A table of at most a thousand rows, a JSON array of objects, or CSV.

    Raises:
        UsageError: The SQL is not one SELECT, or is invalid.
        RunError: It needs too much memory.
        ArchiveError: DuckDB is missing, or the archive cannot be read.
    """
    with open_engine(root) as engine, _errors_translated(root):
        # The engine converts everything to text: it has types that Python lacks.
        relation = engine.sql(_only_select(engine, sql))
        if form == "json":
            _print_objects(text for (text,) in _rows(relation.query("r", "SELECT CAST(to_json(r) AS VARCHAR) FROM r")))
            return 0
        result = relation.project("CAST(COLUMNS(*) AS VARCHAR)")
        if form == "csv":
            writer = csv.writer(data_stream(), lineterminator="\n")
            writer.writerow(map(csv_cell, result.columns))
            writer.writerows(map(csv_cell, row) for row in _rows(result))
            return 0
        rows = list(islice(_rows(result), _MOST_TABLE_ROWS + 1))
        shown = [["-" if value is None else value for value in row] for row in rows[:_MOST_TABLE_ROWS]]
        print(table(result.columns, shown, left=range(len(result.columns))))
        if len(rows) > _MOST_TABLE_ROWS:
            print(f"The table ends after {_MOST_TABLE_ROWS} rows; --format csv or json has them all.", file=sys.stderr)
        return 0


@contextmanager
def open_engine(root: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a locked engine that has the archive's views."""
    with ExitStack() as stack:
        archive = stack.enter_context(open_snapshot(root))
        if archive.gone:
            raise ArchiveError(f"{root / archive.gone[0]} is in the catalogue, but not on the disk.")
        engine = connect(threads=os.cpu_count() or 1)
        stack.callback(engine.close)
        paths = {file.path: fd_path(_exactly_committed(file, stack)) for file in archive.files}
        engine.execute(f"SET allowed_paths = [{', '.join(map(quoted, paths.values()))}]")
        engine.execute("SET enable_external_access = false")
        _make_views(engine, archive, paths)
        engine.execute("SET lock_configuration = true")
        yield engine


def _make_views(engine: duckdb.DuckDBPyConnection, archive: ArchiveSnapshot, paths: dict[str, str]) -> None:
    events = [file for file in archive.files if not file.is_dead_letters]
    sources = [
        _from_parquet([paths[file.path] for file in events if file.is_parquet]),
        _from_json([paths[file.path] for file in events if not file.is_parquet], FIELDS),
    ]
    engine.execute(f"CREATE VIEW events AS {_union(sources, ALL_COLUMNS)}")
    for name, columns in COLUMNS.items():
        engine.execute(
            f"CREATE VIEW {name} AS SELECT {_names(columns)} FROM events WHERE class = '{name}'"  # noqa: S608 - our own names
        )
    engine.execute(f"CREATE VIEW items AS {_ITEMS}")
    engine.execute("CREATE TABLE settled (letter_id VARCHAR, settled VARCHAR)")
    if archive.letter_states:
        engine.executemany("INSERT INTO settled VALUES (?, ?)", list(archive.letter_states.items()))
    letters = [_from_json([paths[file.path] for file in archive.files if file.is_dead_letters], LETTER_FIELDS)]
    engine.execute(
        f"CREATE VIEW dead_letters AS SELECT l.*, s.settled FROM ({_union(letters, LETTER_FIELDS)}) AS l"  # noqa: S608
        " LEFT JOIN settled AS s USING (letter_id)"
    )


def _from_parquet(paths: Sequence[str]) -> str | None:
    if not paths:
        return None
    read = f"SELECT * FROM read_parquet([{', '.join(map(quoted, paths))}], union_by_name = true)"  # noqa: S608 - our own paths
    # A file that an older version compacted lacks the columns of later fields.
    return f"{read} UNION ALL BY NAME (SELECT {_nothing(ALL_COLUMNS)} WHERE false)"


def _from_json(paths: Sequence[str], fields: Mapping[str, str]) -> str | None:
    if not paths:
        return None
    types = ", ".join(f"{quoted(name)}: {quoted(kind)}" for name, kind in fields.items())
    read = f"read_json([{', '.join(map(quoted, paths))}], format = 'newline_delimited', columns = {{{types}}})"
    return f"SELECT {select_list('r', fields)} FROM {with_items(read, fields)} AS r"  # noqa: S608 - our own paths


def _union(sources: Iterable[str | None], columns: Iterable[str]) -> str:
    found = [f"SELECT {_names(columns)} FROM ({source})" for source in sources if source is not None]  # noqa: S608 - our own
    return " UNION ALL ".join(found) or f"SELECT {_nothing(columns)} WHERE false"


def _nothing(columns: Iterable[str]) -> str:
    types = {**FIELDS, **LETTER_FIELDS}
    names = list(columns)
    row = "(SELECT " + ", ".join(f'CAST(NULL AS {types[name]}) AS "{name}"' for name in names) + ")"
    return f"{select_list('r', names)} FROM {with_items(row, names)} AS r"


def _names(columns: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in columns)


def _exactly_committed(file: OpenFile, stack: ExitStack) -> int:
    """Return a file that ends at its committed length: the engine reads files to their end."""
    if file.is_parquet or (file.sealed and os.fstat(file.descriptor).st_size == file.size_bytes):
        return file.descriptor
    copy = os.memfd_create("committed")
    stack.callback(os.close, copy)
    offset = 0
    while offset < file.size_bytes:
        data = os.pread(file.descriptor, min(_COPY_BYTES, file.size_bytes - offset), offset)
        if not data:
            raise file.damage()
        os.write(copy, data)
        offset += len(data)
    return copy


def _only_select(engine: duckdb.DuckDBPyConnection, sql: str) -> str:
    import duckdb

    statements = engine.extract_statements(sql)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise UsageError("`archive query` accepts one SELECT and nothing else.")
    return str(statements[0].query)


def _rows(result: duckdb.DuckDBPyRelation) -> Iterator[tuple[Any, ...]]:
    while rows := result.fetchmany(_FETCH_ROWS):
        yield from rows


def _print_objects(texts: Iterable[str]) -> None:
    before = "[\n"
    for text in texts:
        print(before, _finite(text), sep="", end="")
        before = ",\n"
    print("\n]" if before == ",\n" else "[]")


def _finite(text: str) -> str:
    """Replace NaN and infinities, which JSON lacks, with null."""
    if "NaN" not in text and "Infinity" not in text:
        return text
    return json.dumps(_with_nulls(json.loads(text)), ensure_ascii=False)


def _with_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_nulls(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_with_nulls(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def _errors_translated(root: Path) -> Iterator[None]:
    import duckdb

    try:
        yield
    except duckdb.OutOfMemoryException:
        raise RunError("The query needs too much memory; select less, or aggregate.") from None
    except duckdb.IOException as error:
        raise ArchiveError(f"The archive in {root} cannot be read: {_sentence(error)}") from None
    except duckdb.Error as error:
        raise UsageError(_sentence(error)) from None


def _sentence(error: Exception) -> str:
    # After an empty line DuckDB repeats the query, and after a tab it lists every function.
    return str(error).partition("\n\n")[0].partition("\n\t")[0].rstrip(".") + "."
