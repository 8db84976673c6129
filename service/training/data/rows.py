"""The rows of a source, whatever its format: ids turned into codes, and what was left out counted and named.

Invariants:

1. n_rows = good + bad. A bad row is named by its place, "file:number: reason", the first `MAX_EXAMPLES` of them.
2. Either every good row of a source has a rating or none has, and so with times.
3. Memory is the resulting arrays and what a reader hands over at once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeVar, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from service.errors import DataError
from service.training.data.field_values import (
    ID_LIMIT,
    NO_TIME,
    NULL,
    Dates,
    has_decimal_comma,
    is_slashed_date,
    parse_id,
    parse_number,
    parse_time,
    to_seconds,
)
from service.training.interactions import Float32, Int32, Int64

Column = TypeVar("Column", bound=NDArray[Any])

MAX_EXAMPLES: Final = 10
_ID_FAULT: Final = f"is not of 1 to {ID_LIMIT} characters without control characters"
_NUMBER_FAULT: Final = "is not a finite number"
_TIME_FAULT: Final = "is neither unix time nor ISO 8601"


@dataclass(eq=False)
class SourceRows:
    """The good rows of a source, and what was left out.

    Attributes:
        user_codes: Int32 (n,), positions in `user_ids`.
        item_codes: Int32 (n,), positions in `item_ids`.
        ratings: Float32 (n,).
        timestamps: Int64 (n,), unix seconds; None if the source has no times.
        user_ids: Ids in order of first appearance; those that only bad rows name are among them.
        item_ids: likewise.
        n_rows: SourceRows met, good or bad.
        n_bad_rows: Bad ones.
        bad_examples: The first of them, "file:number: reason".
        ranks: Int8 or int32 (n,), of a doubled pair a row of a higher rank outlives any of a lower one;
            None if all are equal.
        has_ratings: Whether the source has ratings; without them every rating is 1.
    """

    user_codes: Int32
    item_codes: Int32
    ratings: Float32
    timestamps: Int64 | None
    user_ids: list[str]
    item_ids: list[str]
    n_rows: int
    n_bad_rows: int
    bad_examples: list[str]
    ranks: NDArray[np.int8] | NDArray[np.int32] | None = None
    has_ratings: bool = True


class Batch(NamedTuple):
    """What a reader found in some rows; a place that holds no value says so.

    Attributes:
        users: Int32 (n,), codes; -1 for none.
        items: Int32 (n,), likewise.
        ratings: Float32 (n,), NaN for none; None where the source has no ratings.
        timestamps: Int64 (n,), unix seconds, `NO_TIME` for none; None where the source has no times.
        ranks: Int8 (n,); None where there are none.
    """

    users: Int32
    items: Int32
    ratings: Float32 | None
    timestamps: Int64 | None
    ranks: NDArray[np.int8] | None = None

    def good(self) -> NDArray[np.bool_]:
        """Return which rows have all their values, bool (n,)."""
        good: NDArray[np.bool_] = (self.users >= 0) & (self.items >= 0)
        if self.ratings is not None:
            good &= ~np.isnan(self.ratings)
        if self.timestamps is not None:
            good &= self.timestamps != NO_TIME
        return good

    def only(self, good: NDArray[np.bool_]) -> "Batch":
        """Return some of the rows; bool (n,), which."""
        ratings, timestamps, ranks = self.ratings, self.timestamps, self.ranks
        return Batch(
            users=self.users[good],
            items=self.items[good],
            ratings=None if ratings is None else ratings[good],
            timestamps=None if timestamps is None else timestamps[good],
            ranks=None if ranks is None else ranks[good],
        )


@dataclass(eq=False)
class RowCollector:
    """Takes up rows, file by file and in order.

    Attributes:
        users: The code of each user id so far.
        items: The code of each item id so far.
    """

    users: dict[str, int] = field(default_factory=dict)
    items: dict[str, int] = field(default_factory=dict)
    _parts: list[Batch] = field(default_factory=list)
    _n_rows: int = 0
    _n_bad_rows: int = 0
    _examples: list[str] = field(default_factory=list)
    _first: tuple[str, bool, bool] | None = None
    _columns: dict[str, None] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """Which columns were taken for what, one sentence each."""
        return tuple(self._columns)

    def add_column_notes(self, sentences: Sequence[str]) -> None:
        """Keep which columns of a file were taken; of files that are read alike the first speaks for all.

        Args:
            sentences: Each "file: what there is to say".
        """
        known = {sentence.partition(": ")[2] for sentence in self._columns}
        for sentence in sentences:
            if sentence.partition(": ")[2] not in known:
                self._columns[sentence] = None

    def begin_file(self, name: str, *, has_ratings: bool, has_times: bool) -> None:
        """Begin a file.

        Args:
            name: The file, for messages.
            has_ratings: Whether its rows have ratings.
            has_times: Whether they have times.

        Raises:
            DataError: An earlier file had what this one lacks, or the other way round.
        """
        if self._first is None:
            self._first = (name, has_ratings, has_times)
        for what, has, first_has in zip(
            ("rating", "timestamp"), (has_ratings, has_times), self._first[1:], strict=True
        ):
            if has != first_has:
                with_it, without = (name, self._first[0]) if has else (self._first[0], name)
                raise DataError(f"{with_it} has a {what} column and {without} has none: files of one set must agree")

    def add(self, batch: Batch, good: NDArray[np.bool_]) -> None:
        """Take up the good rows.

        Args:
            batch: The rows.
            good: Bool (n,), which of them.
        """
        self._parts.append(batch if good.all() else batch.only(good))
        self._n_rows += int(np.count_nonzero(good))

    def reject(self, name: str, reasons: Mapping[int, str]) -> None:
        """Count bad rows, and name the first.

        Args:
            name: Where they are, as it may be printed.
            reasons: By number, from 1: why. Only the first `MAX_EXAMPLES` of a file need one.
        """
        for number in sorted(reasons)[: MAX_EXAMPLES - len(self._examples)]:
            self._examples.append(f"{name}:{number}: {reasons[number]}")
        self._n_rows += len(reasons)
        self._n_bad_rows += len(reasons)

    def rows(self) -> SourceRows:
        """Return everything; nothing can be taken up afterwards."""
        parts = self._parts
        users, items = (_joined([part[place] for part in parts]) for place in (0, 1))
        ratings = _joined([part.ratings for part in parts])
        self._parts = []
        return SourceRows(
            user_codes=np.empty(0, np.int32) if users is None else users,
            item_codes=np.empty(0, np.int32) if items is None else items,
            ratings=np.ones(self._n_rows - self._n_bad_rows, dtype=np.float32) if ratings is None else ratings,
            timestamps=_joined([part.timestamps for part in parts]),
            user_ids=list(self.users),
            item_ids=list(self.items),
            n_rows=self._n_rows,
            n_bad_rows=self._n_bad_rows,
            bad_examples=self._examples,
            ranks=_joined([part.ranks for part in parts]),
            has_ratings=ratings is not None or not parts,
        )


def _joined(columns: Sequence[Column | None]) -> Column | None:
    """Return one column of those of the parts; None where there is none."""
    present = [column for column in columns if column is not None]
    return cast("Column", np.concatenate(present)) if present else None


def encode_ids(column: pa.Array, ids: dict[str, int], to_id: Callable[[Any], str | None] = parse_id) -> Int32:
    """Return each value's position in `ids`, which takes up the new ones.

    Args:
        column: Values of any type that can be told apart.
        ids: The code of each id so far.
        to_id: Turns a value, or None for a missing one, into an id, or into None where it is no id.

    Returns:
        int32 (n,); -1 where a value is no id.
    """
    encoded = pc.dictionary_encode(column, null_encoding="encode")
    code_of: Int32 = np.fromiter(
        (
            -1 if (id_ := to_id(value)) is None else ids.setdefault(id_, len(ids))
            for value in encoded.dictionary.to_pylist()
        ),
        dtype=np.int32,
    )
    found: Int32 = code_of[encoded.indices.to_numpy()]
    return found


def to_ratings(texts: pa.Array) -> Float32:
    """Return ratings written as text, without nulls: float32 (n,); NaN where a text is none."""
    encoded = pc.dictionary_encode(texts)
    values = (parse_number(text) for text in encoded.dictionary.to_pylist())
    number_of: Float32 = np.fromiter((np.nan if value is None else value for value in values), dtype=np.float32)
    found: Float32 = number_of[encoded.indices.to_numpy()]
    return found


def to_times(texts: pa.Array, dates: Dates = "iso") -> Int64:
    """Return times written as text, without nulls: int64 (n,), unix seconds; `NO_TIME` where a text is none.

    Args:
        texts: The fields.
        dates: How dates are written, see `parse_time`.
    """
    try:
        return to_seconds(pc.cast(texts, pa.int64()).to_numpy())
    except pa.ArrowInvalid:  # not all of them are plain whole numbers
        encoded = pc.dictionary_encode(texts)
        values = (parse_time(text, dates) for text in encoded.dictionary.to_pylist())
        seconds_of_text: Int64 = np.fromiter((NO_TIME if value is None else value for value in values), dtype=np.int64)
        found: Int64 = seconds_of_text[encoded.indices.to_numpy()]
        return found


def decimal_points(texts: pa.Array) -> pa.Array:
    """Return numbers written with a decimal comma as they are written with a point; other texts as they are."""
    return pc.replace_substring_regex(texts, r"^(\s*[+-]?[0-9]+),([0-9]+\s*)$", r"\1.\2")


def bad_row_reason(fields: tuple[str | None, ...], dates: Dates = "iso") -> str:
    """Say what is wrong with a row that is not good.

    Args:
        fields: User id, item id, rating and timestamp as text; None for a column that the source lacks.
        dates: How dates are written, see `parse_time`.
    """
    user, item, rating, timestamp = fields
    checks = (
        ("user id", user, parse_id, _ID_FAULT),
        ("item id", item, parse_id, _ID_FAULT),
        ("rating", rating, parse_number, _NUMBER_FAULT),
        ("timestamp", timestamp, lambda text: parse_time(text, dates), _TIME_FAULT),
    )
    for what, value, parse, complaint in checks:
        if value is not None and parse(value) is None:
            if value.strip() in {"", NULL}:
                return f"the {what} is empty"
            return f"the {what} {quoted(value)} {complaint}{_hint(what, value, dates)}"
    raise AssertionError("a row was left out for no reason")


def _hint(what: str, value: str, dates: Dates) -> str:
    """Say which option would read a field, if there is one."""
    if what == "timestamp" and dates == "iso" and is_slashed_date(value):
        return "; --dates day-first or --dates month-first reads it"
    if what == "rating" and has_decimal_comma(value):
        return "; --decimal comma reads it, with the comma before its decimals"
    if what == "rating" and value.strip().lower() in {"true", "false", "yes", "no"}:
        return "; write 1 and 0, or leave the column out with --columns rating="
    return ""


def quoted(value: str) -> str:
    """Return a text from outside as it may stand in a sentence."""
    return repr(value if len(value) <= 40 else f"{value[:40]}…")
