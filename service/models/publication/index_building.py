"""Builds the item index of a model, measures it against exact lists, and refuses it if it loses too much.

The number of cells probed is the smallest power of two whose recall@10 reaches the target: the share of the ten best
unseen items of a user that the index finds, over a sample of the model's own users.
"""

import time
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.models.index.item_index import KIND, ItemIndex
from service.models.index.library import MISSING, all_cores, faiss
from service.models.snapshot import Float32, ModelSnapshot

Rows = NDArray[np.int64]

RECALL_AT: Final = 10
# The recall that more cells are probed for; the floor if that is higher.
_TARGET_RECALL: Final = 0.98
_SAMPLED_USERS: Final = 200
_USERS_AT_ONCE: Final = 8
# The items that one query asks for: as many as `scoring` asks for to make a list of this length.
_SEARCHED: Final = RECALL_AT + 16
_POINTS_PER_LIST: Final = 64
_ITERATIONS: Final = 10
# The largest share of the cells that a query may search. With more an index saves too little.
_LARGEST_SHARE: Final = 0.25
_SEED: Final = 12


@dataclass(frozen=True)
class IndexRules:
    """When a model gets an index.

    Attributes:
        least_items: Smaller catalogues are searched exactly.
        recall_floor: An index whose recall@10 is lower is refused.
    """

    least_items: int = 50_000
    recall_floor: float = 0.95


@dataclass(frozen=True)
class BuiltIndex:
    """What came of building an index.

    Attributes:
        index: The index; None if lists are made exactly.
        description: The manifest's `index`: `kind` is `exact` or that of the index, `why` the reason for `exact`.
    """

    index: ItemIndex | None
    description: dict[str, Any]


def build(snapshot: ModelSnapshot, rules: IndexRules) -> BuiltIndex:
    """Build and measure the index of a model's items, if it is to have one."""
    n_items = len(snapshot.items)
    if n_items < rules.least_items or not snapshot.n_factors:
        return BuiltIndex(None, {"kind": "exact"})
    if faiss() is None:
        return _exact(MISSING)
    users = _sampled_users(snapshot)
    if not users.size:
        return _exact("No user has factors to measure an index with.")
    with all_cores():
        index = _trained(snapshot)
    expected = _exact_lists(snapshot, users)
    target = max(_TARGET_RECALL, rules.recall_floor)
    most = max(1, int(_LARGEST_SHARE * index.n_lists))
    n_probe = 1
    while True:
        index = ItemIndex(index.index, min(n_probe, most))
        recall, query_ms = _measured(snapshot, index, users, expected)
        if recall >= target or n_probe >= most:
            break
        n_probe *= 2
    if recall < rules.recall_floor:
        return _exact(
            f"The index finds {recall:.3f} of the ten best items with {index.n_probe} of {index.n_lists} cells, and "
            f"the floor is {rules.recall_floor:g}."
        )
    description = {
        "kind": KIND,
        "items": n_items,
        "nlist": index.n_lists,
        "nprobe": index.n_probe,
        f"recall@{RECALL_AT}": round(recall, 4),
        "query_ms": round(query_ms, 3),
        "floor": rules.recall_floor,
        "users": int(users.size),
    }
    return BuiltIndex(index, description)


def _exact(why: str) -> BuiltIndex:
    return BuiltIndex(None, {"kind": "exact", "why": why})


def _trained(snapshot: ModelSnapshot) -> ItemIndex:
    library: Any = faiss()
    vectors = snapshot.item_factors
    if snapshot.has_item_bias:
        vectors = np.concatenate([vectors, snapshot.item_bias[:, np.newaxis]], axis=1)
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    n_items, n_dimensions = vectors.shape
    n_lists = 1 << max(1, round(np.log2(2 * np.sqrt(n_items))))
    quantizer = library.IndexFlatIP(n_dimensions)
    index = library.IndexIVFFlat(quantizer, n_dimensions, n_lists, library.METRIC_INNER_PRODUCT)
    index.cp.niter, index.cp.seed = _ITERATIONS, _SEED
    index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, _POINTS_PER_LIST
    sample = np.random.default_rng(_SEED).permutation(n_items)[: n_lists * _POINTS_PER_LIST]
    index.train(vectors[np.sort(sample)])
    index.add(vectors)
    return ItemIndex(index, 1)


def _sampled_users(snapshot: ModelSnapshot) -> Rows:
    users = np.flatnonzero(snapshot.has_user_factors)
    chosen = np.random.default_rng(_SEED).permutation(users.size)[:_SAMPLED_USERS]
    return users[np.sort(chosen)]


def _exact_lists(snapshot: ModelSnapshot, users: Rows) -> Rows:
    """Return the ten best unseen items of each user, int64 (m, 10), in any order."""
    found = np.empty((users.size, RECALL_AT), dtype=np.int64)
    for start in range(0, users.size, _USERS_AT_ONCE):
        own = users[start : start + _USERS_AT_ONCE]
        scores: Float32 = snapshot.user_factors[own] @ snapshot.item_factors.T
        scores += snapshot.item_bias
        for place, user_row in enumerate(own.tolist()):
            scores[place, snapshot.seen_rows(user_row)] = -np.inf
            found[start + place] = np.argpartition(scores[place], -RECALL_AT)[-RECALL_AT:]
    return found


def _measured(snapshot: ModelSnapshot, index: ItemIndex, users: Rows, expected: Rows) -> tuple[float, float]:
    """Return recall@10, and the median time of a query in milliseconds."""
    hits, times_s = 0, []
    for user_row, best in zip(users.tolist(), expected, strict=True):
        started_s = time.perf_counter()
        found = index.search(snapshot.user_factors[user_row], _SEARCHED, snapshot.seen_rows(user_row))
        times_s.append(time.perf_counter() - started_s)
        top = found.rows[np.argsort(-found.scores, kind="stable")[:RECALL_AT]]
        hits += int(np.isin(best, top).sum())
    return hits / expected.size, float(np.median(times_s)) * 1000
