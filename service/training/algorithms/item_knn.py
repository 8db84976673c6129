"""Item k-NN for ranking: what has been seen speaks for the items that the same users have seen.

With w_u what a user counts for and s_i an item's scale, the users U(i) who have seen i and a shrink term h,

    dot(i, j) = s_i s_j sum over U(i) and U(j) of w_u^2         |i|^2 = dot(i, i), or |U(i)| with walk
    cosine    = dot(i, j) / (|i|^(2 a) |j|^(2 (1 - a)) + h)
    jaccard   = dot(i, j) / (|i|^2 + |j|^2 - dot(i, j) + h)
    product   = dot(i, j)

for i that is spoken for by j. An a of 0.5 is the cosine, and less of it favours popular items (B. Sarwar et al.,
"Item-based collaborative filtering recommendation algorithms", WWW 2001; F. Aiolli, "Efficient top-N recommendation
for very large scale binary rated datasets", RecSys 2013). Well tuned it is hard to beat, which is why its settings are
those of M. Ferrari Dacrema, P. Cremonesi and D. Jannach, "Are we really making much progress?", RecSys 2019.

With `walk` a user's one voice is shared by all they have seen, w_u^2 = 1 / |seen|, so that a product is the chance to
come from an item to a user and on to another item (B. Paudel et al., "Updatable, accurate, diverse, and scalable
recommendations for interactive applications", TiiS 7(1), 2017). It suits sparse data.

Invariants: the weights are a function of data and settings alone; each list is found by one thread in one order, and of
equally similar items the one of the lower row stays. Memory is the lists and a row of sums for each thread.
"""

from dataclasses import dataclass
from typing import Annotated, Final

import numpy as np
from scipy.sparse import csr_array

from service.models.neighbourhood import Neighbourhood
from service.models.snapshot import ModelSnapshot
from service.training.algorithms import hyperparameters
from service.training.algorithms.hyperparameters import Settings
from service.training.algorithms.kernels import threads
from service.training.algorithms.kernels.compiled import compiled
from service.training.algorithms.kernels.neighbour_lists import item_neighbourhood, push_bounded
from service.training.algorithms.registry import Algorithm
from service.training.assembly import assemble, history
from service.training.interactions import Float32, Float64, Int32, Interactions, Progress

NAME: Final = "item_knn"
SIMILARITIES: Final = ("cosine", "jaccard", "product")
WEIGHTINGS: Final = ("none", "tf_idf", "bm25", "walk")
# BM25's constants, as Robertson and Zaragoza recommend them ("The probabilistic relevance framework", 2009).
_BM25_SATURATION: Final = 1.2
_BM25_LENGTH: Final = 0.75
_BLOCK_ITEMS: Final = 64
# How many items are done between two reports.
_REPORTED_ITEMS: Final = 32 * _BLOCK_ITEMS
_NOBODY: Final = -1


@dataclass(frozen=True)
class ItemKnnConfig(Settings):
    """Settings of item k-NN."""

    n_neighbours: Annotated[
        int,
        {"unit": "items", "least": 1, "most": 1_000_000, "search": (5, 1000, "log")},
        "How many other items speak for an item at most: the most similar.",
    ] = 100
    similarity: Annotated[str, {"choices": SIMILARITIES}, "How alike two items are."] = "cosine"
    shrink: Annotated[
        float,
        {"least": 0, "most": 1e6, "search": (1, 1000, "log")},
        "Added to what a similarity is divided by, so that few users in common count for little.",
    ] = 10.0
    asymmetry: Annotated[
        float,
        {"least": 0, "most": 1, "search": (0, 1)},
        "Of a cosine, the share of the norm that is the item's which is spoken for; less favours popular items.",
    ] = 0.4
    weighting: Annotated[
        str,
        {"choices": WEIGHTINGS},
        "Whether users with long histories count for less, with walk most of all, and with bm25 popular items, too.",
    ] = "tf_idf"


def fit(data: Interactions, config: ItemKnnConfig, _rng: np.random.Generator, progress: Progress) -> ModelSnapshot:
    """Find every item's most similar ones.

    Args:
        data: At least one interaction; how it was rated does not matter.
        config: The settings.
        _rng: Not needed, nothing is drawn.
        progress: Told of the items.

    Returns:
        The model; an item that the data's rows do not name has no neighbours.
    """
    by_user = history(data)
    by_item = by_user.T.tocsr()
    user_weights, item_scales, norms = importance(by_user, config.weighting)
    n_items = by_item.shape[0]
    k = min(config.n_neighbours, n_items)
    speakers, weights = np.full((n_items, k), _NOBODY, dtype=np.int32), np.zeros((n_items, k), dtype=np.float32)
    squares = user_weights**2
    kind = SIMILARITIES.index(config.similarity)
    own_norms, other_norms = norms, norms
    if config.similarity == "cosine":
        own_norms, other_norms = norms**config.asymmetry, norms ** (1 - config.asymmetry)
    pairs = (by_item.indptr, by_item.indices, by_user.indptr, by_user.indices)
    terms = (squares, item_scales, own_norms, other_norms)
    for first in range(0, n_items, _REPORTED_ITEMS):
        progress("fit", first, n_items)

        def find(start: int, stop: int, first: int = first) -> None:
            _find(first + start, first + stop, *pairs, *terms, kind, config.shrink, speakers, weights)

        threads.run_in_blocks(find, min(_REPORTED_ITEMS, n_items - first), _BLOCK_ITEMS)
    progress("fit", n_items, n_items)
    return assemble(
        data,
        algorithm=NAME,
        settings=hyperparameters.as_json(config),
        neighbourhood=_by_speaker(speakers, weights),
    )


ALGORITHM: Final = Algorithm(ItemKnnConfig, fit, kind="ranking")


def importance(by_user: csr_array, weighting: str) -> tuple[Float64, Float64, Float64]:
    """Return what users and items count for, w and s, and |i|^2: float64 (n_users,), (n_items,) and (n_items,).

    An item is a document and its users are the words in it, as Ferrari Dacrema et al. have it.

    Args:
        by_user: CSR (n_users, n_items), who has seen what.
        weighting: One of `WEIGHTINGS`.
    """
    n_users, n_items = by_user.shape
    seen = np.maximum(np.diff(by_user.indptr), 1)
    lengths = np.bincount(by_user.indices, minlength=n_items).astype(np.float64)
    if weighting == "walk":
        return seen**-0.5, np.ones(n_items), lengths
    weights, scales = np.ones(n_users), np.ones(n_items)
    if weighting != "none":
        # Never negative: a user who has seen everything tells nothing.
        weights = np.log(n_items / seen)
    if weighting == "bm25":
        relative = 1 - _BM25_LENGTH + _BM25_LENGTH * lengths / lengths.mean()
        scales = (_BM25_SATURATION + 1) / (_BM25_SATURATION * relative + 1)
    squares = np.repeat(weights**2, np.diff(by_user.indptr))
    return weights, scales, np.bincount(by_user.indices, squares, n_items) * scales**2


@compiled
def _find(
    start: int,
    stop: int,
    item_starts: Int32,
    item_users: Int32,
    user_starts: Int32,
    user_items: Int32,
    squares: Float64,
    item_scales: Float64,
    own_norms: Float64,
    other_norms: Float64,
    kind: int,
    shrink: float,
    speakers: Int32,
    weights: Float32,
) -> None:  # pragma: no cover  # compiled; tests hold it to the reference
    """Fill the lists of items start to stop."""
    n_items = item_starts.size - 1
    sums = np.zeros(n_items)
    for i in range(start, stop):
        sums[:] = 0
        for place in range(item_starts[i], item_starts[i + 1]):
            u = item_users[place]
            square = squares[u]
            for other in range(user_starts[u], user_starts[u + 1]):
                sums[user_items[other]] += square
        n_kept = 0
        for j in range(n_items):
            if sums[j] <= 0 or j == i:
                continue
            dot = item_scales[i] * item_scales[j] * sums[j]
            if kind == 0:
                similarity = dot / (own_norms[i] * other_norms[j] + shrink)
            elif kind == 1:
                similarity = dot / (own_norms[i] + other_norms[j] - dot + shrink)
            else:
                similarity = dot
            n_kept = push_bounded(weights[i], speakers[i], n_kept, np.float32(similarity), j)


def _by_speaker(speakers: Int32, weights: Float32) -> Neighbourhood:
    """Turn lists by who is spoken for into lists by who speaks."""
    taken = speakers != _NOBODY
    rows = speakers[taken]
    # Taken by item, and sorted stably by speaker, items come in ascending order.
    order = np.argsort(rows, kind="stable")
    items = np.repeat(np.arange(len(speakers), dtype=np.int32), np.count_nonzero(taken, axis=1))
    return item_neighbourhood(weights[taken][order], items[order], np.bincount(rows, minlength=len(speakers)))
