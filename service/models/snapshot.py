"""A trained model in memory: vocabularies, factors, biases, neighbours and the items that each user has seen.

The score of item i for user u is

    global_mean + user_bias[u] + item_bias[i] + user_factors[u] · item_factors[i] + neighbour term of (u, i)

for every algorithm. A model with factors (Koren, Bell and Volinsky, "Matrix factorization techniques for recommender
systems", Computer 42(8), 2009) has no neighbours, and one with neighbours has factors of rank 0.
Invariant: a snapshot is immutable; a new model is a new snapshot.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from service.errors import ModelRefused
from service.models.embedding_space import embedding_space
from service.models.fold_in.fold_in import fold_in
from service.models.fold_in.representation import UserRepresentation
from service.models.fold_in.settings import NETWORK, FoldIn
from service.models.history.event_values import DEFAULT_VALUES, EVENT_SCALE
from service.models.history.rating_scale import RatingScale
from service.models.history.user_history import EVENT_TYPES, RATING, UserHistory
from service.models.index.item_index import ItemIndex
from service.models.items.records import ItemRecords
from service.models.neighbourhood import Neighbourhood
from service.models.networks.network import Ranker
from service.models.networks.networks import Networks
from service.models.user_clusters import UserClusters
from service.models.vocabulary import Vocabulary

Float32 = NDArray[np.float32]
UNPUBLISHED = "unpublished"
# Each takes about half a kilobyte.
_MOST_FOLDED_USERS = 1 << 14
# Below the largest float32, with room for rounding.
_MAX_SCORE = 1e38


@dataclass(frozen=True, eq=False)
class ModelSnapshot:
    """One immutable model.

    Attributes:
        algorithm: Its name on the command line.
        settings: The algorithm's hyperparameters, as plain JSON values.
        users: The n_users user ids.
        items: The n_items item ids.
        user_factors: Float32 (n_users, k), C order.
        item_factors: Float32 (n_items, k), C order.
        user_bias: Float32 (n_users,).
        item_bias: Float32 (n_items,).
        global_mean: In units of the rating scale.
        rating_min: Lower end of the rating scale.
        rating_max: Upper end of the rating scale.
        history: Float32 CSR (n_users, n_items), the training ratings; the entries of a row are the user's seen items.
        popularity: Float32 (n_items,), decayed interaction counts, at least 0.
        data_as_of: RFC 3339 time of the latest training interaction, or of training if the data has no times.
        neighbourhood: Neighbour weights of a model without factors; else None.
        event_values: The value of each of `EVENT_TYPES` on the rating scale.
        history_ranks: Int32, the place of each entry of `history` in its user's order of time, 0 for the oldest; None
            if the model was published without, and then histories are in the order of items.
        history_times: Int64, the Unix time of each entry, in seconds; None if the data has no times.
        history_types: Uint8, the type of each entry, an index in `EVENT_TYPES`; None if all are ratings.
        input_factors: Float32 (n_items, k), the factors of items as inputs of a fold-in; None if `item_factors` are. Of
            a model with networks they may have another width.
        fold_in_precision: Float64 (k, k), (k + 1, k + 1) with the user's bias last, or (1, k), a diagonal, which a
            fold-in by regression adds to its Gramian; None for nothing.
        fold_in: How the model computes a user from interactions; None if it cannot.
        networks: The networks of the model; None of a model without.
        user_inputs: Float32 (n_users, d), the vector of each user as an input of the user tower; None if it has no
            such input.
        user_attributes: Int32 (n_users, c), the categories of each user for the user tower; None if there are none.
        learning_curve: What a training by epochs has measured after each, as plain JSON values; empty for others.
        user_clusters: Clusters of users; None if the users are too few, or the model was published without.
        item_records: Titles and attributes of the items, in row order; None if the training data had none.
        item_index: The index of a large catalogue's items; None if all items are scored.
        version: The published version, or `UNPUBLISHED`.
        manifest: The manifest of the published version; empty before that.
    """

    algorithm: str
    settings: dict[str, Any]
    users: Vocabulary
    items: Vocabulary
    user_factors: Float32
    item_factors: Float32
    user_bias: Float32
    item_bias: Float32
    global_mean: float
    rating_min: float
    rating_max: float
    history: csr_array
    popularity: Float32
    data_as_of: str
    neighbourhood: Neighbourhood | None = None
    event_values: tuple[float, ...] = DEFAULT_VALUES.on_scale(EVENT_SCALE)
    history_ranks: NDArray[np.int32] | None = None
    history_times: NDArray[np.int64] | None = None
    history_types: NDArray[np.uint8] | None = None
    input_factors: Float32 | None = None
    fold_in_precision: NDArray[np.float64] | None = None
    fold_in: FoldIn | None = None
    networks: Networks | None = None
    user_inputs: Float32 | None = None
    user_attributes: NDArray[np.int32] | None = None
    learning_curve: tuple[dict[str, float], ...] = ()
    user_clusters: UserClusters | None = None
    item_records: ItemRecords | None = None
    item_index: ItemIndex | None = None
    version: str = UNPUBLISHED
    manifest: dict[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Check shapes and numbers once, for all later code.

        Raises:
            ModelRefused: Shapes do not fit each other, or a number is not finite or out of range.
        """
        if self.fold_in is not None and self.fold_in.method == NETWORK and self.networks is None:
            raise ModelRefused("The model folds in by a network and has none.")
        n_users, n_items, k = len(self.users), len(self.items), self.n_factors
        expected = {
            "user_factors": (n_users, k),
            "item_factors": (n_items, k),
            "user_bias": (n_users,),
            "item_bias": (n_items,),
            "popularity": (n_items,),
            "history": (n_users, n_items),
        }
        optional = {
            "history_ranks": self.history.indices.shape,
            "history_times": self.history.indices.shape,
            "history_types": self.history.indices.shape,
            "input_factors": (n_items, k),
        }
        if self.networks is not None and self.input_factors is not None:
            optional["input_factors"] = (n_items, *self.input_factors.shape[1:])
        for name in ("user_inputs", "user_attributes"):
            table = getattr(self, name)
            if table is not None:
                optional[name] = (n_users, *table.shape[1:])
        for name, shape in (expected | optional).items():
            array = getattr(self, name)
            if array is not None and array.shape != shape:
                raise ModelRefused(f"{name} has shape {array.shape}, and the ids and the history require {shape}.")
        if self.networks is not None and self.networks.features is not None and self.user_attributes is not None:
            self.networks.features.check_users(self.user_attributes)
        precision = self.fold_in_precision
        if precision is not None and precision.shape not in {(1, k), (k, k), (k + 1, k + 1)}:
            raise ModelRefused(f"fold_in_precision has shape {precision.shape}, and the model {k} factors.")
        numbers = ("user_factors", "item_factors", "user_bias", "item_bias", "popularity")
        for name in (*numbers, "input_factors", "user_inputs", "fold_in_precision"):
            # min and max find NaN and infinity without a temporary array of the model's size.
            array = getattr(self, name)
            if array is not None and array.size and not (np.isfinite(array.min()) and np.isfinite(array.max())):
                raise ModelRefused(f"{name} holds numbers that are not finite.")
        if self.neighbourhood is not None:
            side = n_items if self.neighbourhood.over == "items" else n_users
            if self.neighbourhood.weights.shape != (side, side):
                raise ModelRefused(
                    f"The neighbours have shape {self.neighbourhood.weights.shape}, and the ids require {(side, side)}."
                )
            if k:
                raise ModelRefused(f"A model has factors or neighbours, and this one has neighbours and {k} factors.")
        if self.item_records is not None and len(self.item_records) != n_items:
            raise ModelRefused(f"The item catalogue has {len(self.item_records)} records for {n_items} items.")
        if not all(np.isfinite((self.global_mean, self.rating_min, self.rating_max))):
            raise ModelRefused("The global mean or the rating scale is not finite.")
        if self.rating_min > self.rating_max:
            raise ModelRefused(f"The rating scale goes from {self.rating_min:g} to {self.rating_max:g}.")
        if len(self.event_values) != len(EVENT_TYPES) or not np.isfinite(self.event_values).all():
            raise ModelRefused(f"There are {len(EVENT_TYPES)} types of events, and the values are {self.event_values}.")
        if self.history_types is not None and self.history_types.size and self.history_types.max() >= len(EVENT_TYPES):
            raise ModelRefused("history_types holds a type of event that does not exist.")
        if self.user_clusters is not None:
            self.user_clusters.check(n_users, n_items)
        if n_items and self.popularity.min() < 0:
            raise ModelRefused("popularity holds numbers below 0.")
        self._check_score_range(k)

    def _check_score_range(self, k: int) -> None:
        """Refuse finite numbers whose sums of products are not finite.

        Raises:
            ModelRefused: A score could be infinite or NaN.
        """
        users, items, user_bias, item_bias = (
            float(max(-array.min(), array.max())) if array.size else 0.0
            for array in (self.user_factors, self.item_factors, self.user_bias, self.item_bias)
        )
        if k * users * items + user_bias + item_bias + abs(self.global_mean) > _MAX_SCORE:
            raise ModelRefused("Its factors and biases are so large that a score may be infinite.")

    @property
    def rating_scale(self) -> RatingScale | None:
        """The scale of the training ratings; None if all are equal, as in data without ratings."""
        return RatingScale(self.rating_min, self.rating_max) if self.rating_min < self.rating_max else None

    @cached_property
    def embedding_space(self) -> str | None:
        """The fingerprint of the published version's embedding space; None without one."""
        return embedding_space(self.manifest)

    @property
    def computes_users_slowly(self) -> bool:
        """Whether a thread computes users with live events, in place of the event loop."""
        return self.networks is not None and self.networks.user_tower.is_slow

    @property
    def n_factors(self) -> int:
        """The rank k of the factorisation; 0 for a model with neighbours."""
        return int(self.item_factors.shape[1])

    @property
    def ranker(self) -> Ranker | None:
        """The network that orders the candidates of lists; None if their scores do."""
        return None if self.networks is None else self.networks.ranker

    def seen_rows(self, user_row: int) -> NDArray[np.int32]:
        """Return the seen items of a user: int32, ascending, a view."""
        indptr = self.history.indptr
        rows: NDArray[np.int32] = self.history.indices[indptr[user_row] : indptr[user_row + 1]]
        return rows

    def user_history(self, user_row: int) -> UserHistory:
        """Return the training interactions of a user, oldest first."""
        own = slice(self.history.indptr[user_row], self.history.indptr[user_row + 1])
        rows, values = self.history.indices[own], self.history.data[own]
        types = np.full(rows.size, RATING, dtype=np.uint8) if self.history_types is None else self.history_types[own]
        times_s = None if self.history_times is None else self.history_times[own]
        if self.history_ranks is None:
            return UserHistory(rows, values, types, times_s)
        order = np.argsort(self.history_ranks[own], kind="stable")
        return UserHistory(rows[order], values[order], types[order], None if times_s is None else times_s[order])

    def value_of(self, event_type: str, value: float | None) -> float:
        """Return what an event counts as on the rating scale; without a scale all interactions count the same."""
        if value is None or event_type != EVENT_TYPES[RATING]:
            value = self.event_values[EVENT_TYPES.index(event_type)]
        return min(max(value, self.rating_min), self.rating_max)

    def trained_user(self, user_row: int) -> UserRepresentation:
        """Return the representation of a user as trained."""
        if self.fold_in is not None and self.neighbourhood is not None and self.neighbourhood.over == "items":
            kept = self._folded_users.get(user_row)
            if kept is not None:
                return kept
            folded = fold_in(self, self.user_history(user_row), user_row)
            if folded is not None:
                if len(self._folded_users) >= _MOST_FOLDED_USERS:
                    self._folded_users.clear()
                self._folded_users[user_row] = folded
                return folded
        return UserRepresentation(
            self.user_factors[user_row], float(self.user_constants[user_row]), self.seen_rows(user_row)
        )

    @cached_property
    def _folded_users(self) -> dict[int, UserRepresentation]:
        """Users of a model with neighbours who were asked for before: a pure function's results, kept for speed."""
        return {}

    @cached_property
    def popular_rows(self) -> NDArray[np.int64]:
        """All item rows, int64 (n_items,), by popularity descending, then by row."""
        return np.argsort(-self.popularity, kind="stable")

    @cached_property
    def popular_ranks(self) -> NDArray[np.int64]:
        """The rank of each item row in `popular_rows`, int64 (n_items,); breaks ties of scores."""
        ranks = np.empty(len(self.items), dtype=np.int64)
        ranks[self.popular_rows] = np.arange(len(self.items))
        return ranks

    @cached_property
    def has_item_bias(self) -> bool:
        """Whether an item has a bias other than 0."""
        return bool(self.item_bias.any())

    @cached_property
    def has_user_factors(self) -> NDArray[np.bool_]:
        """Whether a user has a factor other than 0, bool (n_users,)."""
        return np.asarray(self.user_factors.any(axis=1))

    @cached_property
    def seen_by(self) -> csr_array:
        """The history by item: float32 CSR (n_items, n_users), int32 indices, ascending."""
        by_item = self.history.T.tocsr()
        by_item.indices = by_item.indices.astype(np.int32, copy=False)
        return by_item

    @cached_property
    def item_norms(self) -> Float32:
        """Euclidean length of each item's factors, float32 (n_items,); 1 where the factors are all zero."""
        norms = np.sqrt(np.einsum("ij,ij->i", self.item_factors, self.item_factors))
        norms[norms == 0] = 1
        return np.asarray(norms, dtype=np.float32)

    @cached_property
    def user_constants(self) -> NDArray[np.float64]:
        """Global mean plus user bias, the constant part of a user's scores: float64 (n_users,)."""
        return self.user_bias.astype(np.float64) + self.global_mean

    @cached_property
    def max_exact_over_approx(self) -> NDArray[np.float64]:
        """The largest excess of a user's exact scores over approximate ones: float64 (n_users,).

        An approximate score is the float32 sum of item bias and product. An exact one adds the user's constant and
        differs by rounding: |fl(x·y) - x·y| <= k u |x||y|, in any order of summation (Higham, Accuracy and Stability of
        Numerical Algorithms, section 3.1). The constants used here are larger than needed.
        """
        norms = np.sqrt(np.einsum("ij,ij->i", self.user_factors, self.user_factors)).astype(np.float64)
        excess: NDArray[np.float64] = self.user_constants + self._rounding(norms)
        return excess

    def max_exact_over_approx_of(self, user: UserRepresentation) -> float:
        """Return `max_exact_over_approx` of a user who is folded in."""
        return user.constant + float(self._rounding(np.sqrt(np.dot(user.factors, user.factors), dtype=np.float64)))

    def _rounding(self, user_norms: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the largest rounding error of the scores of users with these norms."""
        largest_norm, largest_bias = self._largest_item
        error: NDArray[np.float64] = (
            (self.n_factors + 8) * float(np.finfo(np.float32).eps) * (user_norms * largest_norm + largest_bias)
        )
        return error

    @cached_property
    def _largest_item(self) -> tuple[float, float]:
        """The largest norm and the largest absolute bias of an item."""
        return float(np.max(self.item_norms, initial=0.0)), float(np.max(np.abs(self.item_bias), initial=0.0))
