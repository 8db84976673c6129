"""Training data: interactions of users with items, with ids as rows.

Invariant: a pair (user, item) occurs once, every row of `users` and `items` occurs in the set as read, and all arrays
have one length. Vocabularies are in order of first appearance in the source.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from service.models.history.event_values import DEFAULT_VALUES, EVENT_SCALE
from service.models.history.rating_scale import RatingScale
from service.models.items.record import AttributeValue, ItemRecord
from service.models.items.records import ItemRecords
from service.models.vocabulary import Vocabulary

Progress = Callable[[str, int, int], None]
"""(stage, done, total): called with the progress of a stage, in any unit."""

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


def no_progress(stage: str, done: int, total: int) -> None:
    """Ignore progress."""


@dataclass(frozen=True)
class ItemCatalogue:
    """Titles and attributes of items; not all rated items need be in it, nor all of its items rated.

    Attributes:
        titles: Item id to title.
        attributes: Item id to attributes by name, such as {"genres": ["Comedy"], "year": 1995}.
    """

    titles: dict[str, str] = field(default_factory=dict)
    attributes: dict[str, dict[str, AttributeValue]] = field(default_factory=dict)

    def merged(self, later: "ItemCatalogue") -> "ItemCatalogue":
        """Return both; of an item in both the later title and the later attributes count."""
        return ItemCatalogue(self.titles | later.titles, self.attributes | later.attributes)

    def records(self, ids: Sequence[str]) -> ItemRecords | None:
        """Return the records of items in the order of their ids; None if none of them has a title or an attribute."""
        if not any(id_ in self.titles or self.attributes.get(id_) for id_ in ids):
            return None
        return ItemRecords.of(ItemRecord(self.titles.get(id_), self.attributes.get(id_, {})) for id_ in ids)

    def of(self, ids: Sequence[str]) -> list[dict[str, AttributeValue]]:
        """Return the attributes of items in the order of their ids; of an unknown item none."""
        return [self.attributes.get(id_, {}) for id_ in ids]


@dataclass(frozen=True)
class UserCatalogue:
    """Attributes of users; not all users with interactions need be in it.

    Attributes:
        attributes: User id to attributes by name, such as {"age": 25, "gender": "F"}.
    """

    attributes: dict[str, dict[str, AttributeValue]] = field(default_factory=dict)

    def merged(self, later: "UserCatalogue") -> "UserCatalogue":
        """Return both; of a user in both the later attributes count."""
        return UserCatalogue(self.attributes | later.attributes)

    def of(self, ids: Sequence[str]) -> list[dict[str, AttributeValue]]:
        """Return the attributes of users in the order of their ids; of an unknown user none."""
        return [self.attributes.get(id_, {}) for id_ in ids]


@dataclass(frozen=True)
class ReadReport:
    """The report on a source that was read.

    Attributes:
        source: The path or the specification as given.
        files: Names of the files that were read.
        n_rows: All rows, good or bad, without blank lines and a header.
        n_bad_rows: Rows that were left out.
        bad_examples: The first bad rows, as "file:line: reason".
        n_duplicates: Good rows left out because a later one has the same user and item.
        columns: The meaning of each column, and the ignored columns, one sentence each.
        notes: Other remarks, one sentence each, such as a catalogue that cannot be read.
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
        users: The n_users user ids.
        items: The n_items item ids.
        user_rows: Int32 (n,).
        item_rows: Int32 (n,).
        ratings: Float32 (n,), finite; all 1.0 if the source has no ratings.
        timestamps: Int64 (n,), unix seconds; None if the source has no times.
        rating_min: The least rating of the whole set.
        rating_max: The largest rating of the whole set.
        rated: Whether values are ratings by users: True or False for all, or bool (n,). Other values are the weight of
            an event type, or the 1.0 of a source without ratings.
        types: Uint8 (n,), the type of each interaction, an index in `EVENT_TYPES`; None if a row is a rating if it is
            rated, and otherwise a purchase.
        file_scale: The range of the ratings in files, of a set that also has an archive's; None of any other set.
        event_values: The value of each of `EVENT_TYPES` on the rating scale.
        fingerprint: "sha256:…" over the source, see `datasets.fingerprint`.
        report: The report on reading.
        catalogue: Titles and attributes of items, if the source has them.
        user_catalogue: Attributes of users, if the source has them.
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
    catalogue: ItemCatalogue = field(default_factory=ItemCatalogue)
    user_catalogue: UserCatalogue = field(default_factory=UserCatalogue)
    rated: NDArray[np.bool_] | bool = True
    types: NDArray[np.uint8] | None = None
    file_scale: RatingScale | None = None
    event_values: tuple[float, ...] = DEFAULT_VALUES.on_scale(EVENT_SCALE)

    def __post_init__(self) -> None:
        """Check that the arrays fit each other.

        Raises:
            ValueError: They do not, which is a bug.
        """
        lengths = {self.user_rows.shape, self.item_rows.shape, self.ratings.shape}
        lengths |= {column.shape for column in (self.timestamps, self.types) if column is not None}
        if len(lengths) != 1 or len(self.user_rows.shape) != 1:
            raise ValueError(f"The columns of a set of ratings have different shapes: {sorted(lengths)}.")

    def __len__(self) -> int:
        return int(self.user_rows.size)

    def __repr__(self) -> str:
        return f"<Interactions {len(self)} ratings, {len(self.users)} users, {len(self.items)} items>"

    @property
    def has_order(self) -> bool:
        """Whether times say which interactions are the later ones: there are some, and they are not all equal."""
        times_s = self.timestamps
        return times_s is not None and bool(times_s.size) and bool(times_s.min() < times_s.max())

    def take(self, index: Int64) -> "Interactions":
        """Return the ratings at positions, int64 (m,), with the vocabularies, scale and report of the whole set."""
        return replace(
            self,
            user_rows=self.user_rows[index],
            item_rows=self.item_rows[index],
            ratings=self.ratings[index],
            timestamps=None if self.timestamps is None else self.timestamps[index],
            rated=self.rated if isinstance(self.rated, bool) else self.rated[index],
            types=None if self.types is None else self.types[index],
        )

    @property
    def rated_share(self) -> float:
        """The share of interactions whose value is a rating by a user."""
        if isinstance(self.rated, bool):
            return float(self.rated)
        return float(self.rated.mean()) if self.rated.size else 0.0

    @property
    def all_equal(self) -> bool:
        """Whether all values are equal, so that errors of predicted ratings have no meaning."""
        return not len(self) or bool(self.ratings.min() == self.ratings.max())
