"""Item k-NN for ranking: the seen items are neighbours of the items that the same users have seen.

With user weights w_u, item scales s_i, the users U(i) that have seen i, and a shrink term h,

    dot(i, j) = s_i s_j sum over U(i) and U(j) of w_u^2         |i|^2 = dot(i, i), or |U(i)| with walk
    cosine    = dot(i, j) / (|i|^(2 a) |j|^(2 (1 - a)) + h)
    jaccard   = dot(i, j) / (|i|^2 + |j|^2 - dot(i, j) + h)
    product   = dot(i, j)

for item i with neighbour j. With a = 0.5 it is the cosine; a smaller a favours popular items (B. Sarwar et al.,
"Item-based collaborative filtering recommendation algorithms", WWW 2001; F. Aiolli, "Efficient top-N recommendation for
very large scale binary rated datasets", RecSys 2013). The hyperparameters are those of M. Ferrari Dacrema, P. Cremonesi
and D. Jannach, "Are we really making much progress?", RecSys 2019. tests/reference/item_to_item.py is the slow
equivalent.

A score is the sum over the history of the user of the neighbours' weights times those of the interactions
(`weighted_history`).

With `walk`, w_u^2 = 1 / |seen|, and a product is the probability of a random walk from an item to a user and to another
item (B. Paudel et al., "Updatable, accurate, diverse, and scalable recommendations for interactive applications", TiiS
7(1), 2017). It suits sparse data.

Invariant: the weights depend on data and hyperparameters alone; one thread computes each list in a fixed order, and
ties keep the lower row. Memory is the lists and one row of sums per thread.
"""

from dataclasses import dataclass
from typing import Annotated, Final, NamedTuple

import numpy as np
from scipy.sparse import csr_array

from service.models.fold_in.settings import FoldIn
from service.models.neighbourhood import Neighbourhood
from service.models.snapshot import ModelSnapshot
from service.training.algorithms.kernels import threads
from service.training.algorithms.kernels.compiled import compiled
from service.training.algorithms.kernels.neighbours.lists import item_neighbourhood, push_bounded
from service.training.algorithms.kernels.sparse.rows import SparseRows, sparse_rows
from service.training.algorithms.registry import Algorithm
from service.training.algorithms.weighted_history import WeightedHistory
from service.training.assembly import assemble, history
from service.training.entry_weights import positives
from service.training.interactions import Float32, Float64, Int32, Interactions, Progress

NAME: Final = "item_knn"
SIMILARITIES: Final = ("cosine", "jaccard", "product")
WEIGHTINGS: Final = ("none", "tf_idf", "bm25", "walk")
# The constants of BM25 as Robertson and Zaragoza recommend them ("The probabilistic relevance framework", 2009).
_BM25_SATURATION: Final = 1.2
_BM25_LENGTH: Final = 0.75
_BLOCK_ITEMS: Final = 64
# Items between two reports of progress.
_REPORTED_ITEMS: Final = 32 * _BLOCK_ITEMS
_EMPTY: Final = -1


@dataclass(frozen=True)
class ItemKnnConfig(WeightedHistory):
    """Hyperparameters of item k-NN."""

    n_neighbours: Annotated[
        int, {"unit": "items", "least": 1, "most": 1_000_000, "search": (5, 1000, "log")}, "Neighbours per item."
    ] = 100
    similarity: Annotated[str, {"choices": SIMILARITIES}, "Similarity of two items."] = "cosine"
    shrink: Annotated[
        float,
        {"least": 0, "most": 1e6, "search": (1, 1000, "log")},
        "Added to the divisor of a similarity; damps few common users.",
    ] = 10.0
    asymmetry: Annotated[
        float,
        {"least": 0, "most": 1, "search": (0, 1)},
        "For cosine: exponent of the item's own norm; less favours popular items.",
    ] = 0.4
    weighting: Annotated[
        str, {"choices": WEIGHTINGS}, "Damps long histories, most with walk, and with bm25 popular items."
    ] = "tf_idf"


def fit(
    data: Interactions,
    config: ItemKnnConfig,
    _rng: np.random.Generator,
    progress: Progress,
    *,
    report_every: int = _REPORTED_ITEMS,
) -> ModelSnapshot:
    """Find the most similar items of every item, from what users like. `report_every` is in items."""
    history_weights = config.history_weights(data)
    by_user = history(positives(data, history_weights))
    by_item = by_user.T.tocsr()
    user_weights, item_scales, norms = weights_and_norms(by_user, config.weighting)
    n_items = by_item.shape[0]
    k = min(config.n_neighbours, n_items)
    neighbours, weights = np.full((n_items, k), _EMPTY, dtype=np.int32), np.zeros((n_items, k), dtype=np.float32)
    squares = user_weights**2
    kind = SIMILARITIES.index(config.similarity)
    own_norms, other_norms = norms, norms
    if config.similarity == "cosine":
        own_norms, other_norms = norms**config.asymmetry, norms ** (1 - config.asymmetry)
    users_of, items_of = sparse_rows(by_item), sparse_rows(by_user)
    similarity = _Similarity(kind, config.shrink, squares, item_scales, own_norms, other_norms)
    for first in range(0, n_items, report_every):
        progress("fit", first, n_items)

        def find(start: int, stop: int, first: int = first) -> None:
            _find(first + start, first + stop, users_of, items_of, similarity, neighbours, weights)

        threads.run_in_blocks(find, min(report_every, n_items - first), _BLOCK_ITEMS)
    progress("fit", n_items, n_items)
    return assemble(
        data,
        NAME,
        config,
        neighbourhood=_by_neighbour(neighbours, weights),
        fold_in=FoldIn("neighbour_sum", history_weights),
    )


ALGORITHMS: Final = {NAME: Algorithm(ItemKnnConfig, fit, kind="ranking")}


def weights_and_norms(by_user: csr_array, weighting: str) -> tuple[Float64, Float64, Float64]:
    """Return w, s and |i|^2: float64 (n_users,), (n_items,) and (n_items,).

    As in Ferrari Dacrema et al., an item is a document and its users are its words.

    Args:
        by_user: CSR (n_users, n_items), the seen items.
        weighting: One of `WEIGHTINGS`.
    """
    n_users, n_items = by_user.shape
    seen = np.maximum(np.diff(by_user.indptr), 1)
    lengths = np.bincount(by_user.indices, minlength=n_items).astype(np.float64)
    if weighting == "walk":
        return seen**-0.5, np.ones(n_items), lengths
    weights, scales = np.ones(n_users), np.ones(n_items)
    if weighting != "none":
        # At least 0: a user who has seen everything has no weight.
        weights = np.log(n_items / seen)
    if weighting == "bm25":
        relative = 1 - _BM25_LENGTH + _BM25_LENGTH * lengths / lengths.mean()
        scales = (_BM25_SATURATION + 1) / (_BM25_SATURATION * relative + 1)
    squares = np.repeat(weights**2, np.diff(by_user.indptr))
    return weights, scales, np.bincount(by_user.indices, squares, n_items) * scales**2


class _Similarity(NamedTuple):
    """An index of `SIMILARITIES`, h, w^2, s, and norms, with exponents, of an item and of its neighbour."""

    kind: int
    shrink: float
    squares: Float64
    item_scales: Float64
    own_norms: Float64
    other_norms: Float64


@compiled
def _find(
    start: int,
    stop: int,
    by_item: SparseRows,
    by_user: SparseRows,
    similarity: _Similarity,
    neighbours: Int32,
    weights: Float32,
) -> None:  # pragma: no cover  # compiled; tests/reference/item_to_item.py
    """Fill the lists of items start to stop."""
    kind, shrink, squares, item_scales, own_norms, other_norms = similarity
    n_items = by_item.indptr.size - 1
    sums = np.zeros(n_items)
    for i in range(start, stop):
        sums[:] = 0
        for place in range(by_item.indptr[i], by_item.indptr[i + 1]):
            u = by_item.indices[place]
            square = squares[u]
            for other in range(by_user.indptr[u], by_user.indptr[u + 1]):
                sums[by_user.indices[other]] += square
        n_kept = 0
        for j in range(n_items):
            if sums[j] <= 0 or j == i:
                continue
            dot = item_scales[i] * item_scales[j] * sums[j]
            if kind == 0:
                value = dot / (own_norms[i] * other_norms[j] + shrink)
            elif kind == 1:
                value = dot / (own_norms[i] + other_norms[j] - dot + shrink)
            else:
                value = dot
            n_kept = push_bounded(weights[i], neighbours[i], n_kept, np.float32(value), j)


def _by_neighbour(neighbours: Int32, weights: Float32) -> Neighbourhood:
    """Transpose lists of neighbours by item into lists of items by neighbour."""
    is_used = neighbours != _EMPTY
    rows = neighbours[is_used]
    # Selected by item and sorted stably by neighbour, items ascend.
    order = np.argsort(rows, kind="stable")
    items = np.repeat(np.arange(len(neighbours), dtype=np.int32), np.count_nonzero(is_used, axis=1))
    return item_neighbourhood(weights[is_used][order], items[order], np.bincount(rows, minlength=len(neighbours)))
