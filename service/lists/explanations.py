"""Explanations: the share of each item of a user's history in the score of a listed item.

Invariant: the shares and the base of an explanation add up to the score. The base is what no single item accounts for:
the mean of the ratings, biases, and the difference between a user as trained and as computed from the history.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from service.lists.item_scores import ListUser
from service.models.fold_in.factor_parts import factor_parts
from service.models.neighbourhood import Neighbourhood
from service.models.ranking import similarity
from service.models.ranking.scoring import Rows
from service.models.snapshot import ModelSnapshot

Float64 = NDArray[np.float64]


class Shares(NamedTuple):
    """The shares of items in scores.

    Attributes:
        rows: Int64 (m,), the items that scores come from.
        shares: Float64 (m, n), the share of each in each of n scores.
    """

    rows: Rows
    shares: Float64


class Explanation(NamedTuple):
    """Where a score comes from.

    Attributes:
        items: Rows with their shares, the largest first.
        others: The sum of the shares of all other items.
        base: The rest of the score.
    """

    items: list[tuple[int, float]]
    others: float
    base: float


def shares_of_user(snapshot: ModelSnapshot, user: ListUser, rows: Rows) -> Shares | None:
    """Return the shares of a user's items in the scores of items `rows`, int64 (n,); None if the model cannot tell."""
    if snapshot.neighbourhood is not None:
        return _neighbour_shares(snapshot, snapshot.neighbourhood, user, rows)
    # A user as trained is explained by the training interactions.
    explained = ListUser(user.row) if user.representation is None else user
    parts = factor_parts(snapshot, explained.known_history(snapshot))
    if parts is None:
        return None
    shares = parts.factors @ snapshot.item_factors.take(rows, axis=0).T.astype(np.float64)
    shares += parts.constants[:, np.newaxis]
    return Shares(parts.rows.astype(np.int64), shares)


def shares_of_seeds(snapshot: ModelSnapshot, seeds: list[int], rows: Rows) -> Shares:
    """Return the shares of seeds in the mean similarities of items `rows`, int64 (n,)."""
    shares = np.zeros((len(seeds), rows.size))
    for index, seed in enumerate(seeds):
        if snapshot.n_factors:
            shares[index] = similarity.exact_similarities(snapshot, seed, rows)
        else:
            cosines = np.zeros(len(snapshot.items))
            found, values = similarity.shared_user_cosines(snapshot, seed)
            cosines[found] = values
            shares[index] = cosines[rows]
    return Shares(np.array(seeds, dtype=np.int64), shares / len(seeds))


def explain(shares: Shares, scores: Float64, factors: Float64, n_items: int) -> list[Explanation]:
    """Explain scores.

    Args:
        shares: The shares in the scores before boosts.
        scores: Float64 (n,), as listed.
        factors: Float64 (n,), what boosts multiplied each score by; the shares are multiplied alike.
        n_items: How many items each explanation names.
    """
    found = []
    for column, score, factor in zip(shares.shares.T, scores.tolist(), factors.tolist(), strict=True):
        # Zeros explain nothing.
        order = np.argsort(-column, kind="stable")
        named = [index for index in order[:n_items].tolist() if column[index] > 0]
        items = [(int(shares.rows[index]), float(column[index] * factor)) for index in named]
        total = float(column.sum()) * factor
        others = total - sum(share for _, share in items)
        found.append(Explanation(items, others, score - total))
    return found


def _neighbour_shares(
    snapshot: ModelSnapshot, neighbourhood: Neighbourhood, user: ListUser, rows: Rows
) -> Shares | None:
    representation = user.representation
    if neighbourhood.over != "items" or snapshot.fold_in is None:
        return None
    if representation is None:
        representation = snapshot.trained_user(user.row or 0)
    stored = neighbourhood.weights[representation.inputs][:, rows].astype(np.float64)
    weights = stored.toarray()
    shares = weights * representation.weights[:, np.newaxis]
    if neighbourhood.combine != "sum":
        # A stored weight of 0 is a neighbour, too.
        ones = csr_array((np.ones(stored.nnz), stored.indices, stored.indptr), shape=stored.shape)
        counted = ones.toarray() if neighbourhood.combine == "mean" else np.abs(weights)
        divisors = counted.sum(axis=0)
        shares = np.divide(shares, divisors, out=np.zeros_like(shares), where=divisors > 0)
    return Shares(representation.inputs.astype(np.int64), shares)
