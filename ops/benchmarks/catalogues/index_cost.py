"""Lists of a catalogue of a million items: what they take with an item index and without one, and what it misses.

Items and users are drawn around common centres, with lengths that vary, as factors of interactions have them; every
user has seen some of the items that fit best. The figures are those of lists as they are served: the search, the exact
scores of what it found, and the order.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
from scipy.sparse import csr_array

from service.catalogue.catalogue import of_model
from service.errors import RunError
from service.lists.filters.masks import FilterMasks
from service.lists.item_scores import ListUser
from service.lists.list_request import ListRequest
from service.lists.pipeline import ListModel, make_list
from service.models.items.record import ItemRecord
from service.models.items.records import ItemRecords
from service.models.publication.index_building import IndexRules, build
from service.models.ranking import scoring
from service.models.ranking.scoring import TopNRequest
from service.models.snapshot import ModelSnapshot
from service.models.vocabulary import Vocabulary

_USERS: Final = 1_000
_SEEN: Final = 50
_ITEMS_OF_CENTRE: Final = 500
_SPREAD: Final = 0.7
_N: Final = 10
_MS_PER_S: Final = 1e3


class IndexFigures(NamedTuple):
    """What was measured.

    Attributes:
        build_s: Seconds to build and measure the index.
        description: The manifest's `index`.
        median_ms: By kind of list, the median time with the index and without it.
        p99_ms: By kind of list, the 99th percentile with the index.
        recall: By kind of list, the share of the exact list that the indexed one has.
    """

    build_s: float
    description: dict[str, Any]
    median_ms: dict[str, tuple[float, float]]
    p99_ms: dict[str, float]
    recall: dict[str, float]


def measure(items: int, factors: int, lists: int) -> IndexFigures:
    """Build an index and make lists with and without it, in turns.

    Raises:
        RunError: The index is refused, or its library is not installed.
    """
    model = made_up_model(items, factors)
    began_s = time.process_time()
    built = build(model, IndexRules(least_items=1))
    build_s = time.process_time() - began_s
    if built.index is None:
        raise RunError(f"There is no index: {built.description.get('why')}")
    years = np.random.default_rng(3).integers(2000, 2010, items).tolist()
    catalogue = of_model(model.items, ItemRecords.of(ItemRecord(None, {"year": year}) for year in years))
    both = [
        ListModel(one, catalogue, FilterMasks()) for one in (dataclasses.replace(model, item_index=built.index), model)
    ]

    def plain(one: ListModel, user_row: int) -> list[int]:
        (ranking,) = scoring.personal(one.snapshot, [TopNRequest(user_row, _N)])
        return list(map(int, ranking.rows))

    def filtered(one: ListModel, user_row: int, text: str) -> list[int]:
        return make_list(one, ListRequest(_N, f"u{user_row}", filter=text), ListUser(user_row), 0.0).rows

    kinds: dict[str, Callable[[ListModel, int], list[int]]] = {
        "list": plain,
        "list with a filter that half match": lambda one, row: filtered(one, row, "year >= 2005"),
        "list with a filter that a tenth match": lambda one, row: filtered(one, row, "year == 2005"),
    }
    median_ms, p99_ms, recall = {}, {}, {}
    for name, make in kinds.items():
        times_ms: tuple[list[float], list[float]] = ([], [])
        for each in both:
            make(each, 0)
        shared = 0
        for user_row in range(lists):
            found = []
            for each, own in zip(both, times_ms, strict=True):
                began_s = time.process_time()
                found.append(make(each, user_row))
                own.append((time.process_time() - began_s) * _MS_PER_S)
            shared += len(set(found[0]) & set(found[1]))
        median_ms[name] = statistics.median(times_ms[0]), statistics.median(times_ms[1])
        p99_ms[name] = float(np.quantile(times_ms[0], 0.99))
        recall[name] = shared / (_N * lists)
    return IndexFigures(build_s, built.description, median_ms, p99_ms, recall)


def made_up_model(items: int, factors: int) -> ModelSnapshot:
    """Return a model of a thousand users over clustered items."""
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(max(20, items // _ITEMS_OF_CENTRE), factors)).astype(np.float32)
    spread = np.float32(_SPREAD)
    of_item = rng.integers(0, len(centres), items)
    item_factors = centres[of_item] + spread * rng.standard_normal((items, factors), dtype=np.float32)
    item_factors *= np.exp(0.3 * rng.standard_normal((items, 1), dtype=np.float32))
    of_user = rng.integers(0, len(centres), _USERS)
    user_factors = centres[of_user] + spread * rng.standard_normal((_USERS, factors), dtype=np.float32)
    # Of the user's own centre, as far as there are enough.
    by_centre = np.argsort(of_item, kind="stable")
    starts = np.searchsorted(of_item[by_centre], of_user)
    seen = [np.unique(by_centre[start : start + _SEEN]) for start in starts.tolist()]
    indptr = np.concatenate([[0], np.cumsum([each.size for each in seen])])
    indices = np.concatenate(seen).astype(np.int32)
    return ModelSnapshot(
        algorithm="made_up",
        settings={},
        users=Vocabulary(f"u{row}" for row in range(_USERS)),
        items=Vocabulary(f"i{row}" for row in range(items)),
        user_factors=user_factors,
        item_factors=item_factors,
        user_bias=np.zeros(_USERS, np.float32),
        item_bias=(0.1 * rng.standard_normal(items, dtype=np.float32)),
        global_mean=0.0,
        rating_min=1.0,
        rating_max=5.0,
        history=csr_array((np.ones(indices.size, np.float32), indices, indptr), shape=(_USERS, items)),
        popularity=rng.random(items, dtype=np.float32),
        data_as_of="2026-01-01T00:00:00.000Z",
    )
