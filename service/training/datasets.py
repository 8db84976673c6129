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
from service.training import demo
from service.training.interactions import Catalogue, Int64, Interactions, Progress, ReadReport, no_progress
from service.training.values import shown

if TYPE_CHECKING:
    from service.training.rows import Rows

# 100K, 1M and 10M, and everything since.
MOVIELENS_FILES: Final = ("u.data", "ratings.dat", "ratings.csv")
_UNSUPPORTED: Final = {
    ".jsonl": "JSON lines",
    ".ndjson": "JSON lines",
    ".json": "JSON",
    ".parquet": "a Parquet file",
    ".xlsx": "a spreadsheet",
    ".gz": "compressed",
    ".zip": "compressed",
    ".bz2": "compressed",
    ".xz": "compressed",
    ".zst": "compressed",
}


def read(path_or_spec: str, progress: Progress = no_progress) -> Interactions:
    """Read a set of interactions.

    Args:
        path_or_spec: a MovieLens directory in one of its three formats, one file of them, a CSV or TSV file with
            `user,item[,rating][,timestamp]` columns, or `demo[:USERSxITEMSxRATINGS]`.
        progress: told of the bytes read.

    Returns:
        The usable rows; of a doubled (user, item) pair the latest, by time and then by line.

    Raises:
        DataError: there is nothing there, it is not such a source, no row is usable, or more than half of them are bad.
    """
    size = demo.parse_spec(path_or_spec)
    if size is not None:
        return demo.generate(size, progress)
    # Only here, because what asks for a fingerprint alone has no use for pyarrow.
    from service.training.catalogue import read_catalogue
    from service.training.rows import read_rows

    path = _ratings_file(path_or_spec)
    try:
        n_bytes = path.stat().st_size
        rows = read_rows(path, lambda done: progress("read", done, n_bytes))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    _refuse_unusable(path, rows)
    catalogue, notes = read_catalogue(path)
    report = ReadReport(
        source=shown(path_or_spec),
        files=(shown(path.name),),
        n_rows=rows.n_rows,
        n_bad_rows=rows.n_bad_rows,
        bad_examples=tuple(rows.bad_examples),
        notes=(*_passed_over(path_or_spec, path), *notes),
    )
    return _interactions(rows, report, catalogue)


def fingerprint(path_or_spec: str) -> str:
    """Return "sha256:…" of a source without reading it as data.

    For files it is the sha256 of the file of ratings, for the demo set that of its size and its generator's version.

    Raises:
        DataError: there is nothing there, or it cannot be read.
    """
    size = demo.parse_spec(path_or_spec)
    if size is not None:
        return demo.fingerprint(size)
    path = _ratings_file(path_or_spec)
    try:
        with path.open("rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _ratings_file(path_or_spec: str) -> Path:
    if not path_or_spec.strip():
        raise DataError(f"no data is named: give a file, a MovieLens directory, or {demo.FORM}")
    path = Path(path_or_spec).expanduser()
    try:
        if path.is_dir():
            found = [path / name for name in MOVIELENS_FILES if (path / name).is_file()]
            if not found:
                raise DataError(f"{path} holds none of {', '.join(MOVIELENS_FILES)}, so it is no MovieLens directory")
            return found[0]
        if not path.exists():
            raise DataError(f"there is no {path_or_spec!r}: give a file, a MovieLens directory, or {demo.FORM}")
        if not path.is_file():
            raise DataError(f"{path} is neither a file nor a directory")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # a NUL within the name
        raise DataError(f"{path_or_spec!r} cannot be a path: {error}") from error
    what = _UNSUPPORTED.get(path.suffix.lower())
    if what is not None:
        raise DataError(f"{path} is {what}, which is not supported: give a CSV or TSV file or a MovieLens directory")
    return path


def _passed_over(path_or_spec: str, path: Path) -> list[str]:
    """Say of a directory with several files of ratings which of them counts."""
    if not Path(path_or_spec).expanduser().is_dir():
        return []
    others = [name for name in MOVIELENS_FILES if name != path.name and path.with_name(name).is_file()]
    return [f"{path.parent} holds {' and '.join(others)} too; {path.name} alone was read."] if others else []


def _refuse_unusable(path: Path, rows: Rows) -> None:
    if not rows.n_rows:
        raise DataError(f"{path} holds no rows")
    if 2 * rows.n_bad_rows > rows.n_rows:
        raise DataError(
            f"{path}: {rows.n_bad_rows} of {rows.n_rows} rows are bad, too many to go on; "
            f"the first is {rows.bad_examples[0]}"
        )


def _interactions(rows: Rows, report: ReadReport, catalogue: Catalogue) -> Interactions:
    kept = latest_of_pairs(rows.user_codes, rows.item_codes, len(rows.item_ids), rows.timestamps)
    n_good = rows.user_codes.size
    if kept.size < n_good:
        rows.user_codes, rows.item_codes, rows.ratings = (
            rows.user_codes[kept],
            rows.item_codes[kept],
            rows.ratings[kept],
        )
        rows.timestamps = None if rows.timestamps is None else rows.timestamps[kept]
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
        fingerprint=f"sha256:{rows.sha256}",
        report=dataclasses.replace(report, n_duplicates=n_good - kept.size),
        catalogue=catalogue,
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
