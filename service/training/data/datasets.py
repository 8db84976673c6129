"""From a PATH to a set of interactions: finds the files, reads them, and keeps the latest of doubled pairs.

Invariant: reading is a function of the source's bytes. What cannot be used is never silent: it is counted and named in
the report, or ends in a `DataError` that says what is wrong and where.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from service.errors import DataError
from service.models.vocabulary import Vocabulary
from service.training.data import archived, demo, sources
from service.training.data.sources import Source
from service.training.data.values import shown
from service.training.interactions import Catalogue, Int64, Interactions, Progress, ReadReport, no_progress

if TYPE_CHECKING:
    from service.training.data.rows import Rows

# Ranks are far apart in time: more than all the seconds that a time can have.
_RANK_S: Final = 1 << 40


def read(path_or_spec: str, progress: Progress = no_progress) -> Interactions:
    """Read a set of interactions.

    Args:
        path_or_spec: a MovieLens directory in one of its three formats, one file of them, a CSV, TSV, JSONL or Parquet
            file with `user,item[,rating][,timestamp]` columns, a directory of JSONL or Parquet files,
            `archive:PATH`, or `demo[:USERSxITEMSxRATINGS]`.
        progress: told of the bytes read.

    Returns:
        The usable rows; of a doubled (user, item) pair the latest, by time and then by line.

    Raises:
        DataError: there is nothing there, it is not such a source, no row is usable, or more than half of them are bad.
    """
    size = demo.parse_spec(path_or_spec)
    if size is not None:
        return demo.generate(size, progress)
    root = archived.parse_spec(path_or_spec)
    if root is not None:
        return _read_archive(root, progress)
    return _read_files(path_or_spec, sources.find(path_or_spec), progress)


def fingerprint(path_or_spec: str) -> str:
    """Return "sha256:…" of a source without reading it as data.

    For files it is the sha256 of their bytes, for the demo set that of its size and its generator's version, for an
    archive that of how many events of each producer it holds.

    Args:
        path_or_spec: as for `read`.

    Raises:
        DataError: there is nothing there, or it cannot be read.
    """
    size = demo.parse_spec(path_or_spec)
    if size is not None:
        return demo.fingerprint(size)
    root = archived.parse_spec(path_or_spec)
    return sources.fingerprint(sources.find(path_or_spec)) if root is None else archived.fingerprint(root)


def _read_archive(root: Path, progress: Progress) -> Interactions:
    rows, fingerprint, notes = archived.read_archive(root, progress)
    report = ReadReport(source=archived.NAME, notes=notes)
    _refuse_unusable(str(root), rows)
    return _interactions(rows, fingerprint, report, Catalogue())


def _read_files(path_text: str, source: Source, progress: Progress) -> Interactions:
    # Only here, because what asks for a fingerprint alone has no use for pyarrow.
    from service.training.data.catalogue import read_catalogue
    from service.training.data.jsonl import read_jsonl
    from service.training.data.parquet import read_parquet
    from service.training.data.rows import Gathering
    from service.training.data.tables import read_table

    readers = {"table": read_table, "jsonl": read_jsonl, "parquet": read_parquet}
    gathering, digest = Gathering(), hashlib.sha256()
    n_bytes, n_read = 0, 0

    def on_block(block: bytes) -> None:
        nonlocal n_read
        digest.update(block)
        n_read += len(block)
        progress("read", n_read, n_bytes)

    path = source.files[0]
    name = str(path) if len(source.files) == 1 else path_text
    try:
        n_bytes = sum(path.stat().st_size for path in source.files)
        if not n_bytes:
            raise DataError(f"{name} is empty")
        for path in source.files:
            # A part that its writer had nothing for.
            if path.stat().st_size or len(source.files) == 1:
                readers[sources.format_of(path)](path, gathering, on_block)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    rows = gathering.finish()
    _refuse_unusable(name, rows)
    catalogue, notes = read_catalogue(source.files[0])
    report = ReadReport(
        source=shown(path_text),
        files=tuple(shown(path.name) for path in source.files),
        notes=(*source.notes, *notes),
    )
    return _interactions(rows, f"sha256:{digest.hexdigest()}", report, catalogue)


def _refuse_unusable(name: str, rows: Rows) -> None:
    if not rows.n_rows:
        raise DataError(f"{name} holds no rows")
    if 2 * rows.n_bad_rows > rows.n_rows:
        raise DataError(
            f"{name}: {rows.n_bad_rows} of {rows.n_rows} rows are bad, too many to go on; "
            f"the first is {rows.bad_examples[0]}"
        )


def _interactions(rows: Rows, fingerprint: str, report: ReadReport, catalogue: Catalogue) -> Interactions:
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
        fingerprint=fingerprint,
        report=dataclasses.replace(
            report,
            n_rows=rows.n_rows,
            n_bad_rows=rows.n_bad_rows,
            bad_examples=tuple(rows.bad_examples),
            n_duplicates=n_good - kept.size,
        ),
        catalogue=catalogue,
        rated=rows.has_ratings if rows.ranks is None else rows.ranks == archived.RATING_RANK,
    )


def latest_of_pairs(
    users: NDArray[np.int32], items: NDArray[np.int32], n_items: int, timestamps: Int64 | None
) -> Int64:
    """Return the positions, ascending, of the latest of each (user, item) pair; of equal times the last position.

    Args:
        users: int32 (n,).
        items: int32 (n,), below n_items.
        n_items: how many items there are.
        timestamps: int64 (n,), or None where only the order counts.
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
