"""From a request to a set of interactions: finds the files, reads them, merges them, and keeps one row of each pair.

Invariants: options is a function of the sources' bytes and of the request. What cannot be used is never silent: it is
counted and named in the report, or ends in a `DataError` that says what is wrong and where. Of several sources the row
of the later one stays; within one source the latest, by time and then by line.
"""

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from service.errors import DataError
from service.models.vocabulary import Vocabulary
from service.training.data import demo, sources
from service.training.data.data_request import DEFAULT_OPTIONS, DataRequest, ReadOptions, as_request
from service.training.data.field_values import printable
from service.training.data.formats import archived_events
from service.training.interactions import Catalogue, Int64, Interactions, Progress, ReadReport, no_progress

if TYPE_CHECKING:
    from service.training.data.rows import SourceRows

# Ranks are far apart in time: more than all the seconds that a time can have.
_RANK_S: Final = 1 << 40
# Ranks within one source are below this; the next source's begin there.
_RANKS: Final = 64


def read(data: str | DataRequest, progress: Progress = no_progress) -> Interactions:
    """Read a set of interactions.

    Args:
        data: A request, or one path or specification: a MovieLens directory in one of its three formats, one file of
            them, a CSV, TSV, JSONL or Parquet file with `user,item[,rating][,timestamp]` columns, packed or not, a
            directory or a zip archive of them, "-" for standard input, `archive:PATH`, or
            `demo[:USERSxITEMSxRATINGS]`.
        progress: Told of the bytes read.

    Returns:
        The usable rows, one of each pair of user and item.

    Raises:
        DataError: There is nothing there, it is not such a source, no row is usable, or more than half of them are bad.
    """
    request = as_request(data)
    first, *others = request.sources
    size = demo.parse_spec(first)
    if size is not None and not others:
        return demo.generate(size, progress)
    parts = [_read_source(source, request.options, progress) for source in request.sources]
    if not others:
        return _interactions(parts[0])
    return _interactions(_merged(parts, request))


def fingerprint(data: str | DataRequest) -> str:
    """Return "sha256:…" of a source without options it as data.

    For one source that is read without options it is that of the files' bytes, of the demo set's size and its
    generator's version, or of how many events of each producer an archive holds. For several sources, or with options,
    it is over all of these and the options.

    Args:
        data: As for `read`.

    Raises:
        DataError: There is nothing there, or it cannot be read.
    """
    request = as_request(data)
    return _combined([_fingerprint(source) for source in request.sources], request.options)


def _fingerprint(source: str) -> str:
    size = demo.parse_spec(source)
    if size is not None:
        return demo.fingerprint(size)
    root = archived_events.parse_spec(source)
    return sources.fingerprint(source) if root is None else archived_events.fingerprint(root)


def _combined(fingerprints: list[str], options: ReadOptions) -> str:
    if len(fingerprints) == 1 and options == DEFAULT_OPTIONS:
        return fingerprints[0]
    told = "\n".join(["sources 1", *fingerprints, repr(dataclasses.astuple(options))])
    return f"sha256:{hashlib.sha256(told.encode()).hexdigest()}"


@dataclass(frozen=True)
class _Part:
    """What one source holds."""

    rows: "SourceRows"
    fingerprint: str
    report: ReadReport
    catalogue: Catalogue


def _read_source(source: str, options: ReadOptions, progress: Progress) -> _Part:
    size = demo.parse_spec(source)
    if size is not None:
        return _demo_part(demo.generate(size, progress))
    root = archived_events.parse_spec(source)
    if root is not None:
        rows, fingerprint, notes = archived_events.read_archive(root, progress)
        _refuse_unusable(str(root), rows)
        return _Part(rows, fingerprint, ReadReport(source=archived_events.NAME, notes=notes), Catalogue())
    return _read_files(source, options, progress)


def _demo_part(data: Interactions) -> _Part:
    from service.training.data.rows import SourceRows

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
    return _Part(rows, data.fingerprint, data.report, data.catalogue)


def _read_files(path_text: str, options: ReadOptions, progress: Progress) -> _Part:
    # Only here, because what asks for a fingerprint alone has no use for pyarrow.
    from service.training.data.data_warnings import suspicions
    from service.training.data.formats.jsonl import read_jsonl
    from service.training.data.formats.movielens_items import read_catalogue
    from service.training.data.formats.parquet_rows import read_parquet
    from service.training.data.formats.text_table import read_table
    from service.training.data.rows import RowCollector

    readers = {"table": read_table, "jsonl": read_jsonl, "parquet": read_parquet}
    collector, digest = RowCollector(), hashlib.sha256()
    n_bytes, n_read = 0, 0

    def on_raw(piece: bytes) -> None:
        nonlocal n_read
        digest.update(piece)
        n_read += len(piece)
        progress("read", n_read, n_bytes)

    with sources.open_source(path_text) as source:
        name = source.files[0].name if len(source.files) == 1 else path_text
        try:
            n_bytes = sum(file.path.stat().st_size for file in source.files)
            if not n_bytes:
                raise DataError(f"{name} is empty")
            for file in source.files:
                # A part that its writer had nothing for.
                if file.path.stat().st_size or len(source.files) == 1:
                    readers[sources.detect_format(file, options)](file, options, collector, on_raw)
        except OSError as error:
            raise DataError(f"{name} cannot be read: {error.strerror or error}") from error
        rows = collector.rows()
        _refuse_unusable(name, rows)
        catalogue, notes = read_catalogue(source.files[0].path)
        is_plain = source.hashed == tuple(file.path for file in source.files)
        fingerprint = f"sha256:{digest.hexdigest()}" if is_plain else sources.sha256_of(source.hashed)
    report = ReadReport(
        source=printable(path_text),
        files=tuple(file.short_name for file in source.files),
        columns=collector.columns,
        notes=(
            *source.notes,
            *suspicions(rows),
            *notes,
        ),
    )
    return _Part(rows, _combined([fingerprint], options), report, catalogue)


def _merged(parts: list[_Part], request: DataRequest) -> _Part:
    """Put several sources into one; a row of a later source outranks all rows of earlier ones."""
    from service.training.data.data_warnings import doubtful_ids
    from service.training.data.rows import SourceRows

    first = parts[0]
    for source, part in zip(request.sources[1:], parts[1:], strict=True):
        for what, has, first_has in (
            ("ratings", part.rows.has_ratings, first.rows.has_ratings),
            ("times", part.rows.timestamps is not None, first.rows.timestamps is not None),
        ):
            if has != first_has:
                with_it, without = (source, request.sources[0]) if has else (request.sources[0], source)
                raise DataError(f"{with_it} has {what} and {without} has none: sources of one set must agree")
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    user_codes, item_codes, ranks = [], [], []
    for place, part in enumerate(parts):
        rows = part.rows
        user_codes.append(_recoded(rows.user_codes, rows.user_ids, users))
        item_codes.append(_recoded(rows.item_codes, rows.item_ids, items))
        rank = archived_events.RATING_RANK if rows.has_ratings else 0
        own = np.full(rows.ratings.size, rank, np.int32) if rows.ranks is None else rows.ranks.astype(np.int32)
        ranks.append(own + place * _RANKS)
    timestamps = [part.rows.timestamps for part in parts if part.rows.timestamps is not None]
    merged = SourceRows(
        user_codes=np.concatenate(user_codes),
        item_codes=np.concatenate(item_codes),
        ratings=np.concatenate([part.rows.ratings for part in parts]),
        timestamps=np.concatenate(timestamps) if timestamps else None,
        user_ids=list(users),
        item_ids=list(items),
        n_rows=sum(part.rows.n_rows for part in parts),
        n_bad_rows=sum(part.rows.n_bad_rows for part in parts),
        bad_examples=[example for part in parts for example in part.rows.bad_examples],
        ranks=np.concatenate(ranks),
    )
    report = ReadReport(
        source=str(request),
        files=tuple(file for part in parts for file in part.report.files),
        columns=tuple(dict.fromkeys(sentence for part in parts for sentence in part.report.columns)),
        notes=(
            f"{len(parts)} sources were merged; where they share a user and an item, the later one counts.",
            *dict.fromkeys([*(note for part in parts for note in part.report.notes), *doubtful_ids(merged)]),
        ),
    )
    catalogue = Catalogue()
    for part in parts:
        catalogue = Catalogue(
            {**catalogue.titles, **part.catalogue.titles}, {**catalogue.genres, **part.catalogue.genres}
        )
    fingerprints = [_fingerprint(source) for source in request.sources]
    return _Part(merged, _combined(fingerprints, request.options), report, catalogue)


def _recoded(codes: NDArray[np.int32], ids: list[str], code_of: dict[str, int]) -> NDArray[np.int32]:
    """Return codes of one source as those of all, which take up the new ids."""
    translated = np.fromiter((code_of.setdefault(id_, len(code_of)) for id_ in ids), dtype=np.int32, count=len(ids))
    recoded: NDArray[np.int32] = translated[codes]
    return recoded


def _refuse_unusable(name: str, rows: "SourceRows") -> None:
    from service.training.data.messages import remedy

    if not rows.n_rows:
        raise DataError(f"{name} holds no rows")
    if 2 * rows.n_bad_rows > rows.n_rows:
        raise DataError(
            f"{name}: {rows.n_bad_rows} of {rows.n_rows} rows are bad, too many to go on; "
            f"the first is {rows.bad_examples[0]}{remedy(rows.bad_examples)}"
        )


def _interactions(part: _Part) -> Interactions:
    rows = part.rows
    order = rows.timestamps
    if rows.ranks is not None and order is not None:
        order = order + rows.ranks * np.int64(_RANK_S)
    kept = latest_of_pairs(rows.user_codes, rows.item_codes, len(rows.item_ids), order)
    n_good = rows.user_codes.size
    if kept.size < n_good:
        rows.user_codes, rows.item_codes, rows.ratings = (
            rows.user_codes[kept],
            rows.item_codes[kept],
            rows.ratings[kept],
        )
        rows.timestamps = None if rows.timestamps is None else rows.timestamps[kept]
        rows.ranks = None if rows.ranks is None else rows.ranks[kept]
    user_rows, users = _compact(rows.user_codes, rows.user_ids)
    item_rows, items = _compact(rows.item_codes, rows.item_ids)
    return Interactions(
        users=users,
        items=items,
        user_rows=user_rows,
        item_rows=item_rows,
        ratings=rows.ratings,
        timestamps=rows.timestamps,
        rating_min=float(rows.ratings.min()),
        rating_max=float(rows.ratings.max()),
        fingerprint=part.fingerprint,
        report=dataclasses.replace(
            part.report,
            n_rows=rows.n_rows,
            n_bad_rows=rows.n_bad_rows,
            bad_examples=tuple(rows.bad_examples),
            n_duplicates=n_good - kept.size,
        ),
        catalogue=part.catalogue,
        rated=rows.has_ratings if rows.ranks is None else rows.ranks % _RANKS == archived_events.RATING_RANK,
    )


def latest_of_pairs(
    users: NDArray[np.int32], items: NDArray[np.int32], n_items: int, timestamps: Int64 | None
) -> Int64:
    """Return the positions, ascending, of the latest of each (user, item) pair; of equal times the last position.

    Args:
        users: Int32 (n,).
        items: Int32 (n,), below n_items.
        n_items: How many items there are.
        timestamps: Int64 (n,), or None where only the order counts.
    """
    pairs = users.astype(np.int64) * n_items + items
    in_order = np.sort(pairs)
    if not np.any(in_order[1:] == in_order[:-1]):
        return np.arange(pairs.size)
    # Both sorts are stable, so that equal pairs of equal times stay in the order of the file.
    order: NDArray[Any] = np.argsort(pairs, kind="stable") if timestamps is None else np.lexsort((timestamps, pairs))
    is_last = np.append(pairs[order[1:]] != pairs[order[:-1]], True)
    return np.sort(order[is_last])


def _compact(codes: NDArray[np.int32], ids: list[str]) -> tuple[NDArray[np.int32], Vocabulary]:
    """Leave out the ids that no good row names."""
    is_used = np.bincount(codes, minlength=len(ids)) > 0
    if is_used.all():
        return codes, Vocabulary(ids)
    rows = (np.cumsum(is_used) - 1).astype(np.int32)
    return rows[codes], Vocabulary([ids[code] for code in np.flatnonzero(is_used).tolist()])
