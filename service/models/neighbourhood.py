"""Neighbour weights of k-nearest-neighbour and item-to-item models.

Invariant: the term of an item is summed over its neighbours in stored order, in float64, whatever else is requested, so
that it has the same bits wherever it is computed.
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
    """Neighbour weights and how they combine into a score.

    For user u and item i, the neighbours are: with `over` "items", the seen items j of u with a stored weight (j, i);
    with `over` "users", the users v with a stored weight (u, v) that have seen i. A neighbour with weight w has a
    signal x: 1 if `signal` is "seen"; if it is "residual", the rating of j by u, or of i by v, less the global mean and
    the two biases of that rating. The term of (u, i) is

        sum             sum of w x
        weighted_mean   sum of w x / sum of |w|
        mean            sum of w x / number of neighbours

    and 0 without neighbours. A stored weight of 0 is a neighbour too.

    Attributes:
        over: Whether items or users are neighbours.
        combine: How the terms of neighbours combine.
        signal: The signal of a neighbour.
        weights: Float32 CSR with int32 indices, ascending in a row: (n_items, n_items), where row j holds the items
            whose neighbour j is, or (n_users, n_users), where row u holds the neighbours of u.
    """

    over: Over
    combine: Combine
    signal: Signal
    weights: csr_array

    def __post_init__(self) -> None:
        """Check names and numbers; `ModelSnapshot` checks the shape.

        Raises:
            ModelRefused: A name is not among those above, or a weight is not finite.
        """
        for name, allowed in _FIELDS.items():
            value = getattr(self, name)
            if value not in allowed:
                raise ModelRefused(f"The neighbourhood's {name} is {value!r}, not {' or '.join(allowed)}.")
        values = self.weights.data
        if values.size and not (np.isfinite(values.min()) and np.isfinite(values.max())):
            raise ModelRefused("The neighbourhood's weights hold numbers that are not finite.")

    def description(self) -> dict[str, str]:
        """Return the fields that are not arrays, as plain JSON values."""
        return {name: getattr(self, name) for name in _FIELDS}

    @classmethod
    def from_description(cls, description: dict[str, Any], weights: csr_array) -> "Neighbourhood":
        """Build one from `description()` and its weights.

        Raises:
            ModelRefused: A field is missing or has an unknown value.
        """
        named: dict[str, Any] = {name: description.get(name) for name in _FIELDS}
        return cls(weights=weights, **named)

    def of_users(self, keep: NDArray[np.bool_]) -> "Neighbourhood":
        """Return the neighbourhood of the users of a mask, bool (n_users,)."""
        if self.over == "items":
            return self
        kept = np.flatnonzero(keep)
        weights = self.weights[kept][:, kept]
        weights.sort_indices()
        weights.indices = weights.indices.astype(np.int32, copy=False)
        return Neighbourhood(self.over, self.combine, self.signal, weights)


class NeighbourScores(NamedTuple):
    """Scores from neighbours, float64 (n_items,), and whether an item has a neighbour: bool (n_items,)."""

    scores: Scores
    has_neighbour: NDArray[np.bool_]


def row_entries(matrix: csr_array, rows: NDArray[np.integer[Any]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the entries of several rows, int (m,), of a CSR matrix.

    Returns:
        The positions of the entries in `indices` and `data`, row after row, int64 (p,), and the number of entries of
        each row, int64 (m,).
    """
    starts = matrix.indptr[rows].astype(np.int64, copy=False)
    counts = matrix.indptr[rows + 1] - starts
    ends = np.cumsum(counts)
    n = int(ends[-1]) if ends.size else 0
    return np.arange(n) + np.repeat(starts - ends + counts, counts), counts


def neighbour_terms(
    neighbourhood: Neighbourhood,
    history: csr_array,
    user_row: int,
    *,
    global_mean: float,
    user_bias: NDArray[np.float32],
    item_bias: NDArray[np.float32],
) -> NeighbourScores:
    """Return the neighbour term of every item for one user.

    Args:
        history: Float32 CSR (n_users, n_items).
        global_mean: That of the model.
        user_bias: Float32 (n_users,).
        item_bias: Float32 (n_items,).
    """
    weights = neighbourhood.weights
    own = slice(history.indptr[user_row], history.indptr[user_row + 1])
    if neighbourhood.over == "items":
        seen = history.indices[own]
        positions, counts = row_entries(weights, seen)
        items = weights.indices[positions]
        weight = weights.data[positions].astype(np.float64)
        signal = _signal(neighbourhood, history.data[own], global_mean, user_bias[user_row], item_bias[seen])
        signal = np.repeat(signal, counts) if neighbourhood.signal == "residual" else signal
    else:
        row = slice(weights.indptr[user_row], weights.indptr[user_row + 1])
        users = weights.indices[row]
        positions, counts = row_entries(history, users)
        items = history.indices[positions]
        weight = np.repeat(weights.data[row].astype(np.float64), counts)
        bias = np.repeat(user_bias[users], counts) if neighbourhood.signal == "residual" else user_bias[:0]
        signal = _signal(neighbourhood, history.data[positions], global_mean, bias, item_bias[items])
    return _combined(neighbourhood, items, weight, signal, history.shape[1])


def input_terms(
    neighbourhood: Neighbourhood, inputs: NDArray[np.int32], signals: NDArray[np.float64]
) -> NeighbourScores:
    """Return the neighbour term of every item, given input items with their signals, both (m,)."""
    weights = neighbourhood.weights
    positions, counts = row_entries(weights, inputs)
    items = weights.indices[positions]
    return _combined(
        neighbourhood, items, weights.data[positions].astype(np.float64), np.repeat(signals, counts), weights.shape[0]
    )


def input_sums(
    neighbourhood: Neighbourhood, inputs: NDArray[np.int32], signals: NDArray[np.float64]
) -> tuple[NDArray[np.int32], Scores]:
    """Return the items that have a neighbour among the inputs, ascending, and their sums, both (m,).

    The sums have the bits of `input_terms` with `combine` "sum", and cost no time for the rest of the catalogue.
    """
    positions, counts = row_entries(neighbourhood.weights, inputs)
    items = neighbourhood.weights.indices[positions]
    products = neighbourhood.weights.data[positions].astype(np.float64) * np.repeat(signals, counts)
    order = np.argsort(items)
    ascending = items[order]
    is_first = np.ones(items.size, dtype=bool)
    np.not_equal(ascending[1:], ascending[:-1], out=is_first[1:])
    group = np.empty(items.size, dtype=np.int64)
    group[order] = np.cumsum(is_first) - 1
    rows = ascending[is_first]
    # Summed in stored order, whatever the order of the sort.
    return rows, np.bincount(group, weights=products, minlength=rows.size).astype(np.float64, copy=False)


def _combined(
    neighbourhood: Neighbourhood, items: NDArray[np.int32], weight: Scores, signal: Scores, n_items: int
) -> NeighbourScores:
    """Combine weights and signals, each (p,), into the terms of their items, int32 (p,)."""
    terms: Scores = np.bincount(items, weights=weight * signal, minlength=n_items).astype(np.float64, copy=False)
    if neighbourhood.combine == "sum":
        has_neighbour = np.zeros(n_items, dtype=bool)
        has_neighbour[items] = True
        return NeighbourScores(terms, has_neighbour)
    n_neighbours = np.bincount(items, minlength=n_items)
    is_mean = neighbourhood.combine == "mean"
    divisors = n_neighbours if is_mean else np.bincount(items, weights=np.abs(weight), minlength=n_items)
    np.divide(terms, divisors, out=terms, where=divisors > 0)
    return NeighbourScores(terms, n_neighbours > 0)


def _signal(
    neighbourhood: Neighbourhood,
    ratings: NDArray[np.float32],
    global_mean: float,
    user_bias: NDArray[np.float32] | np.float32,
    item_bias: NDArray[np.float32],
) -> Scores:
    """Return the signal of each rating, float64 (m,); a single 1 if it is the same for all."""
    if neighbourhood.signal == "seen":
        return np.ones(1)
    signal: Scores = ratings.astype(np.float64)
    signal -= global_mean
    signal -= user_bias
    signal -= item_bias
    return signal
