"""Merges the rows of several sources into those of one.

Invariants, for a user and an item that occur several times:

1. A rating outranks a purchase, a dismissal and a row without a rating; those outrank a click and a view: what a user
   rated is not forgotten because the page was viewed again. Within an archive the same holds.
2. Among rows of one kind that of the later source outranks, whatever the times.

Files agree in whether they have ratings and times, else the set is refused: a forgotten column is more likely than two
kinds of files. Beside an archive, which has both, rows of files without ratings count as purchases, and rows without
times as older than all others, in the order of their file. Ids are compared as
they are written; where telemetry has pseudonyms, those of an archive replace the ids of the other sources.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.errors import DataError
from service.models.history.event_values import EVENT_RANKS, EVENT_VALUES, RATING_RANK
from service.models.history.rating_scale import RatingScale
from service.models.history.user_history import PURCHASE, RATING
from service.training.data.row_collector import SourceRows
from service.training.interactions import Int32, Int64, ItemCatalogue, ReadReport, UserCatalogue
from telemetry.pseudonym import Pseudonymiser

_PURCHASE_VALUE: Final = np.float32(EVENT_VALUES["purchase"] or 0)


@dataclass(frozen=True)
class SourceData:
    """The content of one source, or of several that are merged.

    Attributes:
        name: The source as messages name it.
        fingerprint: "sha256:…", see `datasets.fingerprint`.
        catalogue: Titles and attributes of items.
        users: Attributes of users.
        is_archive: Whether it is an archive, whose user ids are those of telemetry.
        is_generated: Whether it is the demo data, whose rating scale says nothing about other data.
        file_scale: See `Interactions`.
    """

    name: str
    rows: SourceRows
    fingerprint: str
    report: ReadReport
    catalogue: ItemCatalogue
    users: UserCatalogue = field(default_factory=UserCatalogue)
    is_archive: bool = False
    is_generated: bool = False
    file_scale: RatingScale | None = None


def merge(parts: Sequence[SourceData], name: str, fingerprint: str, pseudonyms: Pseudonymiser) -> SourceData:
    """Merge sources, at least one; ids, items and rows are in order of the sources.

    Args:
        name: The name of the whole.
        fingerprint: That of the whole.
        pseudonyms: Replaces the user ids of other sources beside an archive.

    Raises:
        DataError: Some files have ratings or times and others have none.
    """
    # Imported here, because it loads pyarrow, which a fingerprint does not need.
    from service.training.data.data_warnings import id_warnings

    _require_same_columns([part for part in parts if not part.is_archive])
    is_mapped = pseudonyms.active and any(part.is_archive for part in parts)
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    user_codes, item_codes = [], []
    for part in parts:
        rows, ids = part.rows, part.rows.user_ids
        if is_mapped and not part.is_archive:
            ids = [pseudonyms.pseudonym(id_) for id_ in ids]
        user_codes.append(_recoded(rows.user_codes, ids, users))
        item_codes.append(_recoded(rows.item_codes, rows.item_ids, items))
    rows_of = [part.rows for part in parts]
    has_ratings = any(rows.has_ratings for rows in rows_of)
    has_types = any(rows.types is not None or rows.has_ratings != has_ratings for rows in rows_of)
    ranks = [_ranks(rows) * len(parts) + place for place, rows in enumerate(rows_of)]
    merged = SourceRows(
        user_codes=np.concatenate(user_codes),
        item_codes=np.concatenate(item_codes),
        ratings=np.concatenate([_values(rows, has_ratings=has_ratings) for rows in rows_of]),
        timestamps=_times(rows_of),
        user_ids=list(users),
        item_ids=list(items),
        n_rows=sum(rows.n_rows for rows in rows_of),
        n_bad_rows=sum(rows.n_bad_rows for rows in rows_of),
        bad_examples=[example for rows in rows_of for example in rows.bad_examples],
        ranks=np.concatenate(ranks),
        has_ratings=has_ratings,
        types=np.concatenate([_types(rows) for rows in rows_of]) if has_types else None,
    )
    report = ReadReport(
        source=name,
        files=tuple(file for part in parts for file in part.report.files),
        columns=tuple(dict.fromkeys(sentence for part in parts for sentence in part.report.columns)),
        notes=tuple(
            dict.fromkeys(
                [
                    *_notes(parts, merged),
                    *(note for part in parts for note in part.report.notes),
                    *id_warnings(merged),
                ]
            )
        ),
    )
    catalogue = functools.reduce(ItemCatalogue.merged, (part.catalogue for part in parts))
    catalogues = [
        _mapped(part.users, pseudonyms) if is_mapped and not part.is_archive else part.users for part in parts
    ]
    users_of_all = functools.reduce(UserCatalogue.merged, catalogues)
    return SourceData(name, merged, fingerprint, report, catalogue, users_of_all, file_scale=_file_scale(parts))


def _mapped(users: UserCatalogue, pseudonyms: Pseudonymiser) -> UserCatalogue:
    return UserCatalogue({pseudonyms.pseudonym(id_): found for id_, found in users.attributes.items()})


def _require_same_columns(files: Sequence[SourceData]) -> None:
    for file in files[1:]:
        for column, has, first_has in (
            ("ratings", file.rows.has_ratings, files[0].rows.has_ratings),
            ("times", file.rows.timestamps is not None, files[0].rows.timestamps is not None),
        ):
            if has != first_has:
                with_it, without = (file, files[0]) if has else (files[0], file)
                raise DataError(
                    f"{with_it.name} has {column} and {without.name} has none: files of one set must agree."
                )


def _recoded(codes: Int32, ids: Sequence[str], code_of: dict[str, int]) -> Int32:
    """Return the codes of one source as codes of all sources; new ids are added to `code_of`."""
    new_code = np.fromiter((code_of.setdefault(id_, len(code_of)) for id_ in ids), dtype=np.int32, count=len(ids))
    recoded: Int32 = new_code[codes]
    return recoded


def _ranks(rows: SourceRows) -> Int32:
    """Return the rank of each row by its kind, int32 (n,), from 0."""
    if rows.ranks is not None:
        return rows.ranks.astype(np.int32)
    rank = RATING_RANK if rows.has_ratings else EVENT_RANKS["purchase"]
    return np.full(rows.ratings.size, rank, np.int32)


def _types(rows: SourceRows) -> NDArray[np.uint8]:
    if rows.types is not None:
        return rows.types
    return np.full(rows.ratings.size, RATING if rows.has_ratings else PURCHASE, np.uint8)


def _values(rows: SourceRows, *, has_ratings: bool) -> NDArray[np.float32]:
    if rows.has_ratings or not has_ratings:
        return rows.ratings
    return np.full(rows.ratings.size, _PURCHASE_VALUE, np.float32)


def _times(rows_of: Sequence[SourceRows]) -> Int64 | None:
    known = [rows.timestamps for rows in rows_of if rows.timestamps is not None and rows.timestamps.size]
    if not known:
        return None
    before_all_s = min(int(times_s.min()) for times_s in known) - 1
    return np.concatenate(
        [
            np.full(rows.ratings.size, before_all_s, np.int64) if rows.timestamps is None else rows.timestamps
            for rows in rows_of
        ]
    )


def _notes(parts: Sequence[SourceData], merged: SourceRows) -> list[str]:
    notes = [f"{len(parts)} sources were merged; if they share a user and an item, the later one counts."]
    for part in parts:
        if merged.has_ratings and not part.rows.has_ratings:
            notes.append(f"{part.name} has no ratings: its rows count as purchases.")
        if merged.timestamps is not None and part.rows.timestamps is None:
            notes.append(f"{part.name} has no times: its rows count as older than all others.")
    return notes


def _file_scale(parts: Sequence[SourceData]) -> RatingScale | None:
    """Return the range of the ratings in files beside an archive; None without both, or if those are all equal."""
    rated = [
        part.rows.ratings
        for part in parts
        if part.rows.has_ratings and part.rows.ratings.size and not part.is_archive and not part.is_generated
    ]
    if not rated or not any(part.is_archive for part in parts):
        return None
    low, high = min(float(each.min()) for each in rated), max(float(each.max()) for each in rated)
    return RatingScale(low, high) if low < high else None


def without_rows(name: str, note: str, fingerprint: str) -> SourceData:
    """Return an archive in which there is nothing to learn from yet."""
    rows = SourceRows(
        user_codes=np.empty(0, np.int32),
        item_codes=np.empty(0, np.int32),
        ratings=np.empty(0, np.float32),
        timestamps=np.empty(0, np.int64),
        user_ids=[],
        item_ids=[],
        n_rows=0,
        n_bad_rows=0,
        bad_examples=[],
    )
    report = ReadReport(source=name, notes=(note,))
    return SourceData(name, rows, fingerprint, report, ItemCatalogue(), is_archive=True)
