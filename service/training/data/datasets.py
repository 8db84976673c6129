"""Reads a request into one dataset: finds the files, parses and merges them, and keeps one row of each pair.

Invariants: a dataset is a function of the sources' bytes and the request. A row that cannot be used is counted in the
report, or ends in a `DataError` that names the problem and its place. Of the rows of a user and an item one stays: of
several sources as `merged_sources` says; within one source the latest by time, then by line.
"""

import dataclasses
import hashlib
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.errors import DataError, NothingArchived
from service.models.history.user_history import RATING
from service.models.vocabulary import Vocabulary
from service.training.data import demo, sources
from service.training.data.data_request import DEFAULT_OPTIONS, DataRequest, ReadOptions, as_request
from service.training.data.field_values import printable
from service.training.data.formats import archived_events
from service.training.data.merged_sources import SourceData, merge, without_rows
from service.training.data.row_collector import RowCollector, SourceRows
from service.training.data.sources import DataFile, Format
from service.training.interactions import Int64, Interactions, ItemCatalogue, Progress, ReadReport, no_progress
from telemetry.pseudonym import Pseudonymiser

Reader: TypeAlias = Callable[[DataFile, ReadOptions, RowCollector, Callable[[bytes], None]], None]
"""Parses a file by the options, gives the collector its rows, and passes all raw bytes to the callback, in order."""

# A rank outweighs every time: more seconds than a time can have.
_RANK_S: Final = 1 << 40
# The fingerprint of an archive without anything to learn from, beside other sources.
_NOTHING: Final = "nothing"
NOT_MAPPED: Final = Pseudonymiser()


def read(
    data: str | DataRequest, progress: Progress = no_progress, pseudonyms: Pseudonymiser = NOT_MAPPED
) -> Interactions:
    """Read a dataset.

    Args:
        data: A request, or one path or specification: a MovieLens directory in one of its three formats, one file of
            them, a CSV, TSV, JSONL or Parquet file with `user,item[,rating][,timestamp]` columns, compressed or not, a
            directory or a zip archive of them, "-" for standard input, `archive:PATH`, or
            `demo[:USERSxITEMSxRATINGS]`.
        progress: Called with the bytes read.
        pseudonyms: Replaces the user ids of other sources beside an archive, which has pseudonyms.

    Returns:
        The usable rows, one of each pair of user and item.

    Raises:
        DataError: There is no such source, no row is usable, or more than half of them are bad.
    """
    request = as_request(data)
    first, *others = request.sources
    size = demo.parse_spec(first)
    if size is not None and not others:
        # A generated set has no duplicates, so it needs no pass over its pairs.
        return demo.generate(size, progress)
    if not others:
        return interactions_of(_read_source(first, request.options, progress))
    parts = [_read_part(source, request.options, progress) for source in request.sources]
    if not any(part.rows.n_rows for part in parts):
        raise NothingArchived(f"{request} holds nothing to learn from yet.")
    # Files without their options, which belong to the whole; an archive as it was when it was read.
    each = [
        part.fingerprint if part.is_archive else _fingerprint(source)
        for source, part in zip(request.sources, parts, strict=True)
    ]
    return interactions_of(merge(parts, str(request), _combined(each, request.options), pseudonyms))


def fingerprint(data: str | DataRequest) -> str:
    """Return "sha256:…" of a request without parsing its data.

    For one source without options it is that of the files' bytes, of the demo set's size and its generator's version,
    or of how many events of each producer an archive holds. For several sources, or with options, it is over all of
    these and the options.

    Raises:
        DataError: There is no such source, or it cannot be read.
    """
    request = as_request(data)
    if len(request.sources) == 1:
        return _combined([_fingerprint(request.sources[0])], request.options)
    return _combined([_fingerprint_of_part(source) for source in request.sources], request.options)


def _fingerprint_of_part(source: str) -> str:
    try:
        return _fingerprint(source)
    except NothingArchived:
        return _NOTHING


def _read_part(source: str, options: ReadOptions, progress: Progress) -> SourceData:
    """Read one of several sources, of which an archive may be empty."""
    try:
        return _read_source(source, options, progress)
    except NothingArchived as error:
        return without_rows(archived_events.NAME, str(error), _fingerprint_of_part(source))


def _fingerprint(source: str) -> str:
    size = demo.parse_spec(source)
    if size is not None:
        return demo.fingerprint(size)
    root = archived_events.parse_spec(source)
    return sources.fingerprint(source) if root is None else archived_events.fingerprint(root)


def _combined(fingerprints: list[str], options: ReadOptions) -> str:
    if len(fingerprints) == 1 and options == DEFAULT_OPTIONS:
        return fingerprints[0]
    identity = "\n".join(["sources 1", *fingerprints, repr(dataclasses.astuple(options))])
    return f"sha256:{hashlib.sha256(identity.encode()).hexdigest()}"


def _read_source(source: str, options: ReadOptions, progress: Progress) -> SourceData:
    size = demo.parse_spec(source)
    if size is not None:
        return _demo_source(demo.generate(size, progress))
    root = archived_events.parse_spec(source)
    if root is not None:
        rows, fingerprint, notes = archived_events.read_archive(root, progress)
        _refuse_unusable(str(root), rows)
        report = ReadReport(source=archived_events.NAME, notes=notes)
        return SourceData(archived_events.NAME, rows, fingerprint, report, ItemCatalogue(), is_archive=True)
    return _read_files(source, options, progress)


def _demo_source(data: Interactions) -> SourceData:
    rows = SourceRows(
        user_codes=data.user_rows,
        item_codes=data.item_rows,
        ratings=data.ratings,
        timestamps=data.timestamps,
        user_ids=list(data.users.id_of),
        item_ids=list(data.items.id_of),
        n_rows=len(data),
        n_bad_rows=0,
        bad_examples=[],
    )
    return SourceData(data.report.source, rows, data.fingerprint, data.report, data.catalogue, is_generated=True)


def _read_files(path_text: str, options: ReadOptions, progress: Progress) -> SourceData:
    # Imported here, because the readers load pyarrow, which a fingerprint does not need.
    from service.training.data.data_warnings import row_warnings
    from service.training.data.formats.attribute_files import read_catalogues
    from service.training.data.formats.jsonl import read_jsonl
    from service.training.data.formats.movielens_items import read_catalogue
    from service.training.data.formats.movielens_users import read_users
    from service.training.data.formats.parquet_rows import read_parquet
    from service.training.data.formats.text_table import read_table

    readers: dict[Format, Reader] = {"table": read_table, "jsonl": read_jsonl, "parquet": read_parquet}
    collector, digest = RowCollector(), hashlib.sha256()
    n_bytes, n_read = 0, 0

    def on_raw(chunk: bytes) -> None:
        nonlocal n_read
        digest.update(chunk)
        n_read += len(chunk)
        progress("read", n_read, n_bytes)

    with sources.open_source(path_text) as source:
        name = source.files[0].name if len(source.files) == 1 else path_text
        try:
            n_bytes = sum(file.path.stat().st_size for file in source.files)
            if not n_bytes:
                raise DataError(f"{name} is empty.")
            for file in source.files:
                # A part file may be empty.
                if file.path.stat().st_size or len(source.files) == 1:
                    readers[sources.detect_format(file, options)](file, options, collector, on_raw)
        except OSError as error:
            raise DataError(f"{name} cannot be read: {error.strerror or error}.") from error
        rows = collector.rows()
        _refuse_unusable(name, rows)
        catalogue, notes = read_catalogue(source.files[0].path)
        users, user_notes = read_users(source.files[0].path)
        own_items, own_users, own_notes = read_catalogues(source, options)
        # The digest of the text that was read, unless the fingerprint is that of the zip archive that holds it.
        is_plain = source.hashed_files == tuple(file.path for file in source.files)
        fingerprint = f"sha256:{digest.hexdigest()}" if is_plain else sources.sha256_of(source.hashed_files)
    report = ReadReport(
        source=printable(path_text),
        files=tuple(file.short_name for file in source.files),
        columns=collector.column_notes,
        notes=(*source.notes, *row_warnings(rows), *notes, *user_notes, *own_notes),
    )
    return SourceData(
        name,
        rows,
        _combined([fingerprint], options),
        report,
        catalogue.merged(own_items),
        users.merged(own_users),
    )


def _refuse_unusable(name: str, rows: SourceRows) -> None:
    from service.training.data.data_warnings import advice_for_bad_rows

    if not rows.n_rows:
        raise DataError(f"{name} holds no rows.")
    if 2 * rows.n_bad_rows > rows.n_rows:
        raise DataError(
            f"{name}: {rows.n_bad_rows} of {rows.n_rows} rows are bad, more than half; "
            f"the first is {rows.bad_examples[0]}{advice_for_bad_rows(rows.bad_examples)}."
        )


def interactions_of(source: SourceData) -> Interactions:
    """Keep one row of each pair of a source, and number the users and items in use."""
    rows = source.rows
    order = rows.timestamps
    if rows.ranks is not None:
        order = rows.ranks.astype(np.int64) * (1 if order is None else _RANK_S) + (0 if order is None else order)
    kept = latest_of_pairs(rows.user_codes, rows.item_codes, len(rows.item_ids), order)
    n_good = rows.user_codes.size
    if kept.size < n_good:
        rows.keep(kept)
    user_rows, users = _without_unused(rows.user_codes, rows.user_ids)
    item_rows, items = _without_unused(rows.item_codes, rows.item_ids)
    return Interactions(
        users=users,
        items=items,
        user_rows=user_rows,
        item_rows=item_rows,
        ratings=rows.ratings,
        timestamps=rows.timestamps,
        rating_min=float(rows.ratings.min()),
        rating_max=float(rows.ratings.max()),
        fingerprint=source.fingerprint,
        report=dataclasses.replace(
            source.report,
            n_rows=rows.n_rows,
            n_bad_rows=rows.n_bad_rows,
            bad_examples=tuple(rows.bad_examples),
            n_duplicates=n_good - kept.size,
        ),
        catalogue=source.catalogue,
        user_catalogue=source.users,
        rated=rows.has_ratings if rows.types is None else rows.types == RATING,
        types=rows.types,
        file_scale=source.file_scale,
    )


def latest_of_pairs(
    users: NDArray[np.int32], items: NDArray[np.int32], n_items: int, timestamps: Int64 | None
) -> Int64:
    """Return the positions, ascending, of the latest row of each (user, item) pair; of equal times the last position.

    Without timestamps only the position counts. All arrays are of shape (n,).
    """
    pairs = users.astype(np.int64) * n_items + items
    in_order = np.sort(pairs)
    if not np.any(in_order[1:] == in_order[:-1]):
        return np.arange(pairs.size)
    # Both sorts are stable, so that equal pairs of equal times keep the order of the file.
    order: NDArray[Any] = np.argsort(pairs, kind="stable") if timestamps is None else np.lexsort((timestamps, pairs))
    is_last = np.append(pairs[order[1:]] != pairs[order[:-1]], True)
    return np.sort(order[is_last])


def _without_unused(codes: NDArray[np.int32], ids: list[str]) -> tuple[NDArray[np.int32], Vocabulary]:
    """Return rows and their vocabulary without the ids that no good row has."""
    is_used = np.bincount(codes, minlength=len(ids)) > 0
    if is_used.all():
        return codes, Vocabulary(ids)
    rows = (np.cumsum(is_used) - 1).astype(np.int32)
    return rows[codes], Vocabulary([ids[code] for code in np.flatnonzero(is_used).tolist()])
