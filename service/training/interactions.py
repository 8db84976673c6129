"""What an algorithm is trained on: who rated what, how much and when, with ids turned into rows.

Invariant: a pair (user, item) occurs once, every row of `users` and `items` occurs at least once in the set as it was
read, and all arrays have one length. Vocabularies are in order of first appearance in the source.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from service.models.vocabulary import Vocabulary

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is (in one unit, whichever it is)."""

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


def no_progress(stage: str, done: int, total: int) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class Catalogue:
    """What is known about items besides ratings; items may be missing from it, and it may know items nobody rated.

    Attributes:
        titles: Item id to title.
        genres: Item id to genres, without those that are empty.
    """

    titles: dict[str, str] = field(default_factory=dict)
    genres: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class ReadReport:
    """What reading a source met.

    Attributes:
        source: The path or the specification, as it was given.
        files: Names of the files that were read.
        n_rows: Rows met, good or bad; blank lines and a header are not rows.
        n_bad_rows: Rows that were left out.
        bad_examples: The first of them, as "file:line: reason".
        n_duplicates: Good rows left out because a later one has the same user and item.
        columns: Which columns were taken for what, and which were ignored, one sentence each.
        notes: What else the reader should know, one sentence each, such as a catalogue that cannot be read.
    """

    source: str
    files: tuple[str, ...] = ()
    n_rows: int = 0
    n_bad_rows: int = 0
    bad_examples: tuple[str, ...] = ()
    n_duplicates: int = 0
    columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Interactions:
    """A set of ratings, or a part of one.

    Attributes:
        users: User ids; n_users of them.
        items: Item ids; n_items of them.
        user_rows: Int32 (n,).
        item_rows: Int32 (n,).
        ratings: Float32 (n,), finite; 1.0 throughout where the source has no ratings.
        timestamps: Int64 (n,), unix seconds; None where the source has no times.
        rating_min: The least rating of the whole set.
        rating_max: The largest rating of the whole set.
        rated: Whether values are ratings that users gave, True or False for all of them, or bool (n,); elsewhere a
            value is what a type of event counts, or the 1.0 of a source without ratings.
        fingerprint: "sha256:…" over the source, see `datasets.fingerprint`.
        report: How reading went.
        catalogue: Titles and genres, where the source has them.
    """

    users: Vocabulary
    items: Vocabulary
    user_rows: Int32
    item_rows: Int32
    ratings: Float32
    timestamps: Int64 | None
    rating_min: float
    rating_max: float
    fingerprint: str
    report: ReadReport
    catalogue: Catalogue = field(default_factory=Catalogue)
    rated: NDArray[np.bool_] | bool = True

    def __post_init__(self) -> None:
        """Check that the arrays fit each other.

        Raises:
            ValueError: They do not; a mistake in the code that built them.
        """
        lengths = {self.user_rows.shape, self.item_rows.shape, self.ratings.shape}
        if self.timestamps is not None:
            lengths.add(self.timestamps.shape)
        if len(lengths) != 1 or len(self.user_rows.shape) != 1:
            raise ValueError(f"the columns of a set of ratings have different shapes: {sorted(lengths)}")

    def __len__(self) -> int:
        return int(self.user_rows.size)

    def __repr__(self) -> str:
        return f"<Interactions {len(self)} ratings, {len(self.users)} users, {len(self.items)} items>"

    def take(self, index: Int64) -> "Interactions":
        """Return the ratings at some positions, in that order; vocabularies, scale and report stay those of the whole.

        Args:
            index: Int64 (m,), positions.
        """
        return replace(
            self,
            user_rows=self.user_rows[index],
            item_rows=self.item_rows[index],
            ratings=self.ratings[index],
            timestamps=None if self.timestamps is None else self.timestamps[index],
            rated=self.rated if isinstance(self.rated, bool) else self.rated[index],
        )

    @property
    def rated_share(self) -> float:
        """The share of interactions whose value is a rating that a user gave."""
        if isinstance(self.rated, bool):
            return float(self.rated)
        return float(self.rated.mean()) if self.rated.size else 0.0

    @property
    def all_equal(self) -> bool:
        """Whether all values are the same, so that errors of predicted ratings say nothing."""
        return not len(self) or bool(self.ratings.min() == self.ratings.max())
