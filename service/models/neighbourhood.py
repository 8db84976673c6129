"""Sparse lists of neighbours that speak for items: what k-nearest-neighbour and item-to-item models serve.

Invariant: the term of an item is added up over its speakers in the order in which they are stored, in float64, whoever
else is asked for, so that it is the same to the last bit wherever it is computed.
"""

from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from service.errors import ModelRefused

Over: TypeAlias = Literal["items", "users"]
Combine: TypeAlias = Literal["sum", "weighted_mean", "mean"]
Signal: TypeAlias = Literal["seen", "residual"]
Scores = NDArray[np.float64]

_FIELDS: Final = {"over": get_args(Over), "combine": get_args(Combine), "signal": get_args(Signal)}


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """Who speaks for what, how loudly, and how the voices are put together.

    For a user u and an item i the speakers are, `over` items, the items j that u has seen with a stored weight (j, i),
    and `over` users, the users v with a stored weight (u, v) who have seen i. A speaker's weight is w and its signal x:
    1 where `signal` is "seen"; where it is "residual", the rating of j by u, or of i by v, less the model's mean and
    the two biases of that rating. What they say together is

        sum             sum of w x
        weighted_mean   sum of w x / sum of |w|
        mean            sum of w x / number of speakers

    and 0 where nobody speaks. A stored weight of 0 is a speaker too.

    Attributes:
        over: What is a neighbour of what.
        combine: how.
        signal: What a speaker says.
        weights: Float32 CSR with int32 indices, ascending in a row: (n_items, n_items), where row j holds the items
            that j speaks for, or (n_users, n_users), where row u holds the users who speak for u.
    """

    over: Over
    combine: Combine
    signal: Signal
    weights: csr_array

    def __post_init__(self) -> None:
        """Check the parts that stand alone; `ModelSnapshot` checks the shape.

        Raises:
            ModelRefused: A name is none of those above, or a weight is not finite.
        """
        for name, allowed in _FIELDS.items():
            if getattr(self, name) not in allowed:
                raise ModelRefused(f"the neighbourhood's {name} is {getattr(self, name)!r}, not {' or '.join(allowed)}")
        values = self.weights.data
        if values.size and not (np.isfinite(values.min()) and np.isfinite(values.max())):
            raise ModelRefused("the neighbourhood's weights hold numbers that are not finite")

    def description(self) -> dict[str, str]:
        """Return what is not an array, as plain JSON values."""
        return {name: getattr(self, name) for name in _FIELDS}

    @classmethod
    def described(cls, description: dict[str, Any], weights: csr_array) -> "Neighbourhood":
        """Build one from `description()` and its weights.

        Raises:
            ModelRefused: Something is missing or of a wrong kind.
        """
        # `__post_init__` refuses what is none of the names.
        named: dict[str, Any] = {name: description.get(name) for name in _FIELDS}
        return cls(weights=weights, **named)

    def without_users(self, keep: NDArray[np.bool_]) -> "Neighbourhood":
        """Return the neighbourhood of those users alone.

        Args:
            keep: Bool (n_users,).
        """
        if self.over == "items":
            return self
        kept = np.flatnonzero(keep)
        weights = self.weights[kept][:, kept]
        weights.sort_indices()
        weights.indices = weights.indices.astype(np.int32, copy=False)
        return Neighbourhood(self.over, self.combine, self.signal, weights)


class Said(NamedTuple):
    """What neighbours say of every item: float64 (n_items,); and of which items any speaks at all: bool (n_items,)."""

    terms: Scores
    is_spoken_of: NDArray[np.bool_]


def entries(matrix: csr_array, rows: NDArray[np.integer[Any]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find what several rows of a sparse matrix store.

    Args:
        matrix: CSR.
        rows: Int (m,).

    Returns:
        The positions of their entries in `indices` and `data`, row after row, int64 (p,), and how many entries each
        row has, int64 (m,).
    """
    starts = matrix.indptr[rows].astype(np.int64, copy=False)
    counts = matrix.indptr[rows + 1] - starts
    ends = np.cumsum(counts)
    n = int(ends[-1]) if ends.size else 0
    return np.arange(n) + np.repeat(starts - ends + counts, counts), counts


def terms(
    neighbourhood: Neighbourhood,
    history: csr_array,
    user_row: int,
    *,
    level: float,
    user_bias: NDArray[np.float32],
    item_bias: NDArray[np.float32],
) -> Said:
    """Return what the neighbours say of every item to one user.

    Args:
        neighbourhood: The lists.
        history: Float32 CSR (n_users, n_items), who has seen what.
        user_row: The user.
        level: The model's global mean.
        user_bias: Float32 (n_users,).
        item_bias: Float32 (n_items,).
    """
    weights = neighbourhood.weights
    own = slice(history.indptr[user_row], history.indptr[user_row + 1])
    if neighbourhood.over == "items":
        seen = history.indices[own]
        places, counts = entries(weights, seen)
        items = weights.indices[places]
        weight = weights.data[places].astype(np.float64)
        signal = _signal(neighbourhood, history.data[own], level, user_bias[user_row], item_bias[seen])
        signal = np.repeat(signal, counts) if neighbourhood.signal == "residual" else signal
    else:
        row = slice(weights.indptr[user_row], weights.indptr[user_row + 1])
        speakers = weights.indices[row]
        places, counts = entries(history, speakers)
        items = history.indices[places]
        weight = np.repeat(weights.data[row].astype(np.float64), counts)
        bias = np.repeat(user_bias[speakers], counts) if neighbourhood.signal == "residual" else user_bias[:0]
        signal = _signal(neighbourhood, history.data[places], level, bias, item_bias[items])
    n_items = history.shape[1]
    said: Scores = np.bincount(items, weights=weight * signal, minlength=n_items).astype(np.float64, copy=False)
    speakers_of = np.bincount(items, minlength=n_items)
    if neighbourhood.combine != "sum":
        is_mean = neighbourhood.combine == "mean"
        voices = speakers_of if is_mean else np.bincount(items, weights=np.abs(weight), minlength=n_items)
        np.divide(said, voices, out=said, where=voices > 0)
    return Said(said, speakers_of > 0)


def _signal(
    neighbourhood: Neighbourhood,
    ratings: NDArray[np.float32],
    level: float,
    user_bias: NDArray[np.float32] | np.float32,
    item_bias: NDArray[np.float32],
) -> Scores:
    """Return x of each rating, float64 (m,); a single 1 where it is the same for all."""
    if neighbourhood.signal == "seen":
        return np.ones(1)
    signal: Scores = ratings.astype(np.float64)
    signal -= level
    signal -= user_bias
    signal -= item_bias
    return signal
