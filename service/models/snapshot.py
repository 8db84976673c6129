"""What a trained model means: factors, biases, who is who, and what everyone has already seen.

The score of item i for user u is

    global_mean + user_bias[u] + item_bias[i] + user_factors[u] · item_factors[i] + what i's neighbours say

for every algorithm: one that ends in a factor table (Koren, Bell and Volinsky, "Matrix factorization techniques for
recommender systems", Computer 42(8), 2009) has no neighbours, and one that ends in lists of neighbours has factors of
rank 0. A snapshot is never edited: a new model is a new snapshot.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from service.errors import ModelRefused
from service.models.neighbourhood import Neighbourhood
from service.models.rating_scale import RatingScale
from service.models.vocabulary import Vocabulary

Float32 = NDArray[np.float32]
UNPUBLISHED = "unpublished"
# Below float32's largest number, with room for a sum's rounding.
_LARGEST = 1e38


@dataclass(frozen=True, eq=False)
class ModelSnapshot:
    """One immutable model.

    Attributes:
        algorithm: Its name on the command line.
        settings: The algorithm's settings, as plain JSON values.
        users: User ids; n_users of them.
        items: Item ids; n_items of them.
        user_factors: Float32 (n_users, k), C order.
        item_factors: Float32 (n_items, k), C order.
        user_bias: Float32 (n_users,).
        item_bias: Float32 (n_items,).
        global_mean: In units of the rating scale.
        rating_min: The least rating of the training data.
        rating_max: The largest one.
        history: Float32 CSR (n_users, n_items), the training ratings; what is stored in a row is what that user has
            seen.
        popularity: Float32 (n_items,), decayed interaction counts, at least 0.
        data_as_of: RFC 3339 time of the youngest training interaction, or of training where the data has no times.
        neighbourhood: Who speaks for what, of a model without factors; else None.
        version: The published version, or `UNPUBLISHED`.
        manifest: That of the published version; empty before it is published.
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
    version: str = UNPUBLISHED
    manifest: dict[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Check shapes once, so that nothing later has to.

        Raises:
            ModelRefused: Shapes do not fit each other, or a number is not finite.
        """
        n_users, n_items, k = len(self.users), len(self.items), self.n_factors
        expected = {
            "user_factors": (n_users, k),
            "item_factors": (n_items, k),
            "user_bias": (n_users,),
            "item_bias": (n_items,),
            "popularity": (n_items,),
            "history": (n_users, n_items),
        }
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise ModelRefused(f"{name} has shape {getattr(self, name).shape}, and the ids ask for {shape}")
        for name in ("user_factors", "item_factors", "user_bias", "item_bias", "popularity"):
            # min and max see every NaN and infinity without a temporary array of the model's size
            array = getattr(self, name)
            if array.size and not (np.isfinite(array.min()) and np.isfinite(array.max())):
                raise ModelRefused(f"{name} holds numbers that are not finite")
        if self.neighbourhood is not None:
            side = n_items if self.neighbourhood.over == "items" else n_users
            if self.neighbourhood.weights.shape != (side, side):
                raise ModelRefused(
                    f"the neighbours have shape {self.neighbourhood.weights.shape}, and the ids ask for {(side, side)}"
                )
            if k:
                raise ModelRefused(f"a model has factors or neighbours, and this one has neighbours and {k} factors")
        if not all(np.isfinite((self.global_mean, self.rating_min, self.rating_max))):
            raise ModelRefused("the global mean or the rating scale is not finite")
        if self.rating_min > self.rating_max:
            raise ModelRefused(f"the rating scale goes from {self.rating_min:g} to {self.rating_max:g}")
        if n_items and self.popularity.min() < 0:
            raise ModelRefused("popularity holds numbers below 0")
        self._check_reach(k)

    def _check_reach(self, k: int) -> None:
        """Refuse numbers that are finite and whose sums of products are not.

        Raises:
            ModelRefused: A score could be infinite, or no number.
        """
        users, items, user_bias, item_bias = (
            float(max(-array.min(), array.max())) if array.size else 0.0
            for array in (self.user_factors, self.item_factors, self.user_bias, self.item_bias)
        )
        if k * users * items + user_bias + item_bias + abs(self.global_mean) > _LARGEST:
            raise ModelRefused("its factors and biases are so large that a score may be infinite")

    @property
    def rating_scale(self) -> RatingScale | None:
        """The scale of the ratings that it learnt from; None where all were the same, as in data without ratings."""
        return RatingScale(self.rating_min, self.rating_max) if self.rating_min < self.rating_max else None

    @property
    def n_factors(self) -> int:
        """The rank k of the factorisation."""
        return int(self.item_factors.shape[1])

    def seen_rows(self, user_row: int) -> NDArray[np.int32]:
        """Return the item rows of a user's training history, int32, ascending (a view, not a copy)."""
        indptr = self.history.indptr
        rows: NDArray[np.int32] = self.history.indices[indptr[user_row] : indptr[user_row + 1]]
        return rows

    @cached_property
    def popular_rows(self) -> NDArray[np.int64]:
        """All item rows, int64 (n_items,), by popularity descending, then by row."""
        return np.argsort(-self.popularity, kind="stable")

    @cached_property
    def popular_ranks(self) -> NDArray[np.int64]:
        """The place of each item row in `popular_rows`, int64 (n_items,): what decides between equal scores."""
        ranks = np.empty(len(self.items), dtype=np.int64)
        ranks[self.popular_rows] = np.arange(len(self.items))
        return ranks

    @cached_property
    def has_taste(self) -> NDArray[np.bool_]:
        """Whether a user's factors say anything, bool (n_users,); all False in a model without factors."""
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
        """What every score of a user has in common, global mean and user bias: float64 (n_users,)."""
        return self.user_bias.astype(np.float64) + self.global_mean

    @cached_property
    def user_reaches(self) -> NDArray[np.float64]:
        """How far exact scores may lie above approximate ones, by user: float64 (n_users,).

        An approximate score is the float32 sum of item bias and product. Above it are the user's constant and the
        rounding: |fl(x·y) - x·y| <= k u |x||y|, in any order of summation (Higham, Accuracy and Stability of Numerical
        Algorithms, section 3.1); the factors are generous.
        """
        norms = np.sqrt(np.einsum("ij,ij->i", self.user_factors, self.user_factors)).astype(np.float64)
        largest_norm = float(np.max(self.item_norms, initial=0.0))
        largest_bias = float(np.max(np.abs(self.item_bias), initial=0.0))
        rounding = (self.n_factors + 8) * float(np.finfo(np.float32).eps) * (norms * largest_norm + largest_bias)
        reaches: NDArray[np.float64] = self.user_constants + rounding
        return reaches
