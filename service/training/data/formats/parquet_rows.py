"""Reads the rows of a Parquet file, a batch at a time.

Invariants:

1. Every row is good or bad; a bad row is located by its number in the file, from 1.
2. A column whose type does not suit its role is refused, never converted by a guess.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from service.errors import DataError
from service.training.data.data_request import ReadOptions
from service.training.data.field_values import (
    FIRST_S,
    LAST_S,
    NO_TIME,
    Dates,
    id_text,
    parse_id,
    parse_time,
    printable,
    quoted,
    to_seconds,
)
from service.training.data.formats import column_roles
from service.training.data.formats.field_columns import (
    bad_row_reason,
    encode_ids,
    to_ratings,
    to_times,
    with_decimal_points,
)
from service.training.data.row_collector import MAX_EXAMPLES, RowBatch, RowCollector
from service.training.data.sources import DataFile
from service.training.interactions import Float32, Int64

_BATCH_ROWS: Final = 1 << 18
_FLOAT32_LIMIT: Final = float(np.finfo(np.float32).max)
_UNITS: Final = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_DAY_S: Final = 86_400
# Larger floats are no int64.
_INT64_LIMIT: Final = 2.0**63

_Kinds: TypeAlias = tuple[Callable[[Any], bool], ...]
_TEXT: Final[_Kinds] = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_BYTES: Final[_Kinds] = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
_NUMBER: Final[_Kinds] = (*_TEXT, pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
_KINDS_OF_ROLES: Final[tuple[tuple[str, _Kinds], ...]] = (
    ("user id", (*_NUMBER, *_BYTES)),
    ("item id", (*_NUMBER, *_BYTES)),
    ("rating", (*_NUMBER, pa.types.is_boolean)),
    ("timestamp", (*_NUMBER, pa.types.is_timestamp, pa.types.is_date)),
)


def read_parquet(
    file: DataFile,
    options: ReadOptions,
    collector: RowCollector,
    on_raw: Callable[[bytes], None],
    *,
    batch_rows: int = _BATCH_ROWS,
) -> None:
    """Read a Parquet file in batches, as a `datasets.Reader` does; the columns of its partitions count as its own.

    Raises:
        DataError: It is no whole Parquet file, or lacks a column, or the type of a column does not suit its role.
        OSError: It cannot be read.
    """
    size_bytes = file.path.stat().st_size
    with file.path.open("rb") as raw, file.path.open("rb") as parsed:
        try:
            source = pq.ParquetFile(parsed, pre_buffer=False)
            schema = source.schema_arrow
            own = set(schema.names)
            partitions = [(name, value) for name, value in file.partitions if name not in own]
            names = [*schema.names, *(name for name, _ in partitions)]
            columns = column_roles.named_columns(file.name, names, options)
            # pyarrow selects columns by name, so that a number does not distinguish two of the same name.
            column_roles.refuse_ambiguous(file.name, names, columns, options.column_of)
            fields = tuple(None if position is None else _field(schema, partitions, position) for position in columns)
            _refuse_types(file.name, fields)
            has_times = columns.timestamp is not None
            collector.begin_file(file.name, has_ratings=columns.rating is not None, has_times=has_times)
            collector.add_column_notes(column_roles.describe_columns(file.short_name, columns, names, len(names)))
            wanted = [field.name for field in fields if isinstance(field, pa.Field)]
            n_rows, n_done = source.metadata.num_rows, 0
            for batch in source.iter_batches(batch_rows, columns=wanted, use_threads=False):
                _collect(batch, fields, collector, file.short_name, n_done, options)
                n_done += batch.num_rows
                on_raw(raw.read(max(0, size_bytes * n_done // max(1, n_rows) - raw.tell())))
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            reason = printable(str(error).splitlines()[0][:200])
            raise DataError(f"{file.name} is no whole Parquet file: {reason}.") from error
        while rest := raw.read(1 << 20):
            on_raw(rest)


def _field(schema: Any, partitions: Sequence[tuple[str, str]], position: int) -> Any:
    """Return a column's field, or the (name, value) that all rows of a partition share."""
    return schema.field(position) if position < len(schema.names) else partitions[position - len(schema.names)]


def _refuse_types(name: str, fields: tuple[Any, ...]) -> None:
    for field, (use, kinds) in zip(fields, _KINDS_OF_ROLES, strict=True):
        if isinstance(field, pa.Field) and not _is_any(_value_type(field.type), kinds):
            role = use.removesuffix(" id").replace("timestamp", "time")
            advice = (
                f"--columns {role}= leaves it out"
                if role in {"rating", "time"}
                else f"name another by --columns {role}=NAME"
            )
            raise DataError(
                f"{name}: the column {printable(field.name)!r} is of type {field.type}, which is no {use}: {advice}."
            )


def _value_type(kind: Any) -> Any:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_any(kind: Any, predicates: _Kinds) -> bool:
    return any(predicate(kind) for predicate in predicates)


def _collect(
    batch: pa.RecordBatch,
    fields: tuple[Any, ...],
    collector: RowCollector,
    name: str,
    n_before: int,
    options: ReadOptions,
) -> None:
    user, item, rating, timestamp = (None if field is None else _column(batch, field) for field in fields)
    rating, timestamp = (_bytes_as_text(column) for column in (rating, timestamp))
    if rating is not None and _is_any(rating.type, _TEXT) and options.decimal == "comma":
        rating = with_decimal_points(rating)
    rows = RowBatch(
        users=encode_ids(user, collector.users, _id),
        items=encode_ids(item, collector.items, _id),
        ratings=None if rating is None else _ratings(rating),
        timestamps=None if timestamp is None else _seconds(timestamp, options.dates),
    )
    good = rows.good()
    collector.add(rows, good)
    bad: dict[int, str] = {}
    for rank, row in enumerate(np.flatnonzero(~good).tolist()):
        scalars = [None if column is None else column[row] for column in (user, item, rating, timestamp)]
        bad[n_before + row + 1] = _reason(scalars, options.dates) if rank < MAX_EXAMPLES else ""
    collector.reject(name, bad)


def _column(batch: pa.RecordBatch, field: Any) -> pa.Array:
    if isinstance(field, pa.Field):
        return _simplified(batch.column(field.name))
    return pa.array([field[1]] * batch.num_rows, pa.large_string())


def _simplified(column: pa.Array) -> pa.Array:
    """Return a column without dictionaries and views, which some of pyarrow's functions refuse."""
    kind = _value_type(column.type)
    if _is_any(kind, _TEXT):
        text = column.cast(pa.large_string())
        try:
            text.validate(full=True)
        except pa.ArrowInvalid:  # the text is not UTF-8
            return text.view(pa.large_binary())
        return text
    if _is_any(kind, _BYTES):
        return column.cast(pa.large_binary())
    return column.cast(kind)


def _bytes_as_text(column: pa.Array | None) -> pa.Array | None:
    """Return bytes as text; bytes that are not UTF-8 become neither a number nor a time, so that their rows are bad."""
    if column is None or not _is_any(column.type, _BYTES):
        return column
    texts = [None if value is None else value.decode("utf-8", "replace") for value in column.to_pylist()]
    return pa.array(texts, pa.large_string())


def _id(value: object) -> str | None:
    text = id_text(value)
    return None if text is None else parse_id(text)


def _reason(scalars: Sequence[pa.Scalar | None], dates: Dates) -> str:
    """Return why a row is bad; None stands for a column that the file lacks."""
    for role, scalar in zip(("user", "item"), scalars, strict=False):
        if scalar is not None and id_text(scalar.as_py()) is None:
            return f"the {role} id {quoted(str(scalar.as_py()))} is neither a text nor a whole number"
    return bad_row_reason(tuple(map(_text, scalars)), dates)


def _text(scalar: pa.Scalar | None) -> str | None:
    if scalar is None or not scalar.is_valid:
        return None if scalar is None else ""
    if pa.types.is_timestamp(scalar.type):
        # As a number, because datetime may not reach its year.
        return f"{scalar.value} {scalar.type.unit}"
    value = scalar.as_py()
    return id_text(value) or str(value)


def _ratings(column: pa.Array) -> Float32:
    if _is_any(column.type, _TEXT):
        return to_ratings(pc.fill_null(column, ""))
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    wide = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    wide = np.where(np.abs(wide) <= _FLOAT32_LIMIT, wide, np.nan)
    ratings: Float32 = wide.astype(np.float32)
    return ratings


def _seconds(column: pa.Array, dates: Dates) -> Int64:
    """Return unix seconds, rounded down, int64 (n,); `NO_TIME` if invalid."""
    kind = column.type
    if _is_any(kind, _TEXT):
        return to_times(pc.fill_null(column, ""), dates)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        per_second = 1
        if pa.types.is_timestamp(kind):
            # A time without a zone is UTC, as a text without an offset is.
            whole, per_second = column.cast(pa.int64()), _UNITS[kind.unit]
        elif pa.types.is_date64(kind):
            whole, per_second = column.cast(pa.int64()), _UNITS["ms"]
        else:
            whole = pc.multiply(column.cast(pa.int32()).cast(pa.int64()), _DAY_S)
        seconds = pc.fill_null(whole, 0).to_numpy() // per_second
        seconds[(seconds < FIRST_S) | (seconds > LAST_S)] = NO_TIME
    elif kind == pa.uint64():
        return to_times(pc.fill_null(column.cast(pa.string()), ""))
    elif pa.types.is_integer(kind):
        seconds = to_seconds(pc.fill_null(column.cast(pa.int64()), 0).to_numpy())
    else:
        wide = np.floor(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))
        is_whole = np.abs(wide) < _INT64_LIMIT
        seconds = to_seconds(np.where(is_whole, wide, 0).astype(np.int64))
        for row in np.flatnonzero(~is_whole).tolist():
            seconds[row] = NO_TIME if (time_s := parse_time(str(wide[row]))) is None else time_s
    if column.null_count:
        seconds[column.is_null().to_numpy(zero_copy_only=False)] = NO_TIME
    times: Int64 = seconds
    return times
