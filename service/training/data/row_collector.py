"""Collects the rows of a source, in any format: ids become codes, and bad rows are counted and located.

Invariants:

1. n_rows = good + bad. A bad row is located as "file:number: reason", the first `MAX_EXAMPLES` of them.
2. Either every good row of a source has a rating or none has, and so with times.
3. Memory is the resulting arrays and one batch of a reader.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from service.errors import DataError
from service.training.data.field_values import NO_TIME
from service.training.interactions import Float32, Int32, Int64

Column = TypeVar("Column", bound=NDArray[Any])

MAX_EXAMPLES: Final = 10


@dataclass(eq=False)
class SourceRows:
    """The good rows of a source, and the number and examples of the bad ones."""

    user_codes: Int32  # (n,), positions in `user_ids`
    item_codes: Int32  # (n,), positions in `item_ids`
    ratings: Float32  # (n,)
    timestamps: Int64 | None  # (n,), unix seconds; None if the source has no times
    user_ids: list[str]  # in order of first appearance; some are of bad rows only
    item_ids: list[str]  # likewise
    n_rows: int  # good and bad rows
    n_bad_rows: int
    bad_examples: list[str]  # the first of them, "file:number: reason"
    ranks: NDArray[np.int8] | NDArray[np.int32] | None = None  # of duplicates the highest rank stays
    types: NDArray[np.uint8] | None = None  # (n,), indices in `EVENT_TYPES`; None if the source has no types
    has_ratings: bool = True  # whether the source has ratings; without them every rating is 1

    def keep(self, positions: Int64) -> None:
        """Keep some of the good rows; in place, so that the memory of the others is released."""
        self.user_codes, self.item_codes = self.user_codes[positions], self.item_codes[positions]
        self.ratings = self.ratings[positions]
        self.timestamps = None if self.timestamps is None else self.timestamps[positions]
        self.ranks = None if self.ranks is None else self.ranks[positions]
        self.types = None if self.types is None else self.types[positions]


class RowBatch(NamedTuple):
    """Parsed rows; -1, NaN or `NO_TIME` marks an invalid field."""

    users: Int32  # (n,), codes; -1 if invalid
    items: Int32  # (n,), codes; -1 if invalid
    ratings: Float32 | None  # (n,), NaN if invalid; None if the source has no ratings
    timestamps: Int64 | None  # (n,), unix seconds, `NO_TIME` if invalid; None if the source has no times
    ranks: NDArray[np.int8] | None = None  # int8 (n,); None if all are equal
    types: NDArray[np.uint8] | None = None  # (n,), indices in `EVENT_TYPES`; None if the source has no types

    def good(self) -> NDArray[np.bool_]:
        """Return which rows are valid, bool (n,)."""
        good: NDArray[np.bool_] = (self.users >= 0) & (self.items >= 0)
        if self.ratings is not None:
            good &= ~np.isnan(self.ratings)
        if self.timestamps is not None:
            good &= self.timestamps != NO_TIME
        return good

    def select(self, chosen: NDArray[np.bool_]) -> "RowBatch":
        """Return the rows of a mask, bool (n,)."""
        return RowBatch(
            self.users[chosen],
            self.items[chosen],
            None if self.ratings is None else self.ratings[chosen],
            None if self.timestamps is None else self.timestamps[chosen],
            None if self.ranks is None else self.ranks[chosen],
            None if self.types is None else self.types[chosen],
        )


@dataclass(eq=False)
class RowCollector:
    """Collects the rows of a source, file by file and in order."""

    users: dict[str, int] = field(default_factory=dict)  # the code of each user id so far
    items: dict[str, int] = field(default_factory=dict)  # the code of each item id so far
    _batches: list[RowBatch] = field(default_factory=list)
    _n_rows: int = 0
    _n_bad_rows: int = 0
    _examples: list[str] = field(default_factory=list)
    _first_file: tuple[str, bool, bool] | None = None
    _column_notes: dict[str, None] = field(default_factory=dict)

    @property
    def column_notes(self) -> tuple[str, ...]:
        """Which columns have which role, one sentence each."""
        return tuple(self._column_notes)

    def add_column_notes(self, sentences: Sequence[str]) -> None:
        """Keep sentences "file: text" about a file's columns; equal ones are kept for the first file only."""
        known = {sentence.partition(": ")[2] for sentence in self._column_notes}
        for sentence in sentences:
            if sentence.partition(": ")[2] not in known:
                self._column_notes[sentence] = None

    def begin_file(self, name: str, *, has_ratings: bool, has_times: bool) -> None:
        """Begin a file, which messages call `name`.

        Raises:
            DataError: The first file differs in one of these.
        """
        if self._first_file is None:
            self._first_file = (name, has_ratings, has_times)
        first, *first_has = self._first_file
        for column, has, expected in zip(("rating", "timestamp"), (has_ratings, has_times), first_has, strict=True):
            if has != expected:
                with_it, without = (name, first) if has else (first, name)
                raise DataError(f"{with_it} has a {column} column and {without} has none: files of one set must agree.")

    def add(self, batch: RowBatch, good: NDArray[np.bool_]) -> None:
        """Add the rows of a batch that a mask selects, bool (n,)."""
        self._batches.append(batch if good.all() else batch.select(good))
        self._n_rows += int(np.count_nonzero(good))

    def reject(self, name: str, reasons: Mapping[int, str]) -> None:
        """Count bad rows, and keep the first as examples.

        Args:
            name: Their file, printable.
            reasons: By row number from 1; only the first `MAX_EXAMPLES` of a file need a reason.
        """
        for number in sorted(reasons)[: MAX_EXAMPLES - len(self._examples)]:
            self._examples.append(f"{name}:{number}: {reasons[number]}")
        self._n_rows += len(reasons)
        self._n_bad_rows += len(reasons)

    def rows(self) -> SourceRows:
        """Return all rows, and release the batches; the collector cannot be used afterwards."""
        batches, self._batches = self._batches, []
        users = _concatenated([batch.users for batch in batches])
        items = _concatenated([batch.items for batch in batches])
        ratings = _concatenated([batch.ratings for batch in batches])
        return SourceRows(
            user_codes=np.empty(0, np.int32) if users is None else users,
            item_codes=np.empty(0, np.int32) if items is None else items,
            ratings=np.ones(self._n_rows - self._n_bad_rows, dtype=np.float32) if ratings is None else ratings,
            timestamps=_concatenated([batch.timestamps for batch in batches]),
            user_ids=list(self.users),
            item_ids=list(self.items),
            n_rows=self._n_rows,
            n_bad_rows=self._n_bad_rows,
            bad_examples=self._examples,
            ranks=_concatenated([batch.ranks for batch in batches]),
            types=_concatenated([batch.types for batch in batches]),
            has_ratings=ratings is not None or not batches,
        )


def _concatenated(columns: Sequence[Column | None]) -> Column | None:
    """Return one column; None if there is none."""
    present = [column for column in columns if column is not None]
    return cast("Column", np.concatenate(present)) if present else None
