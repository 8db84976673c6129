"""The processor time of a filter over a large catalogue, and of lists with and without one.

Parts of a filtered list are the mask from the cache, and taking the scores of the items that match. The lists are those
of a factor model, and their time includes the matrix product.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from scipy.sparse import csr_array

from service.catalogue.catalogue import of_model
from service.lists.filters.masks import FilterMasks
from service.lists.item_scores import ListUser
from service.lists.list_request import Boost, ListRequest
from service.lists.pipeline import ListModel, make_list
from service.models.items.record import ItemRecord
from service.models.items.records import ItemRecords
from service.models.snapshot import ModelSnapshot
from service.models.vocabulary import Vocabulary

FILTER: Final = 'genre == "Comedy" and year >= 1990 and not (tag in ["gore"])'
_WIDE: Final = 'genre == "Comedy" or year >= 1990'
_SELECTIVE: Final = 'genre == "Comedy" and year == 1990 and tag in ["gore"]'
_US_PER_S: Final = 1e6


def measure(items: int, factors: int, rounds: int) -> dict[str, float]:
    """Return microseconds of processor time by case; the median of the rounds."""
    model = _model(items, factors)
    catalogue, masks, user = model.catalogue, model.masks, ListUser(0)
    scores = np.zeros(items, dtype=np.float32)
    plain = ListRequest(10, "0")
    filtered = plain._replace(filter=FILTER)
    wide = plain._replace(filter=_WIDE)
    selective = plain._replace(filter=_SELECTIVE)
    boosted = plain._replace(boosts=(Boost(FILTER, 1.5),))

    def restrict() -> None:
        scores.take(masks.of(FILTER, catalogue).rows)

    cases: dict[str, tuple[Callable[[], object], int]] = {
        "first use of a filter": (lambda: FilterMasks().of(FILTER, catalogue), 20),
        "mask from the cache": (lambda: masks.of(FILTER, catalogue), 2_000),
        "mask from the cache, and the scores that match": (restrict, 2_000),
        "list": (lambda: make_list(model, plain, user, 0.0), 20),
        "list with a filter that most items match": (lambda: make_list(model, wide, user, 0.0), 20),
        "list with a filter": (lambda: make_list(model, filtered, user, 0.0), 20),
        "list with a filter that few items match": (lambda: make_list(model, selective, user, 0.0), 20),
        "list with a boost": (lambda: make_list(model, boosted, user, 0.0), 20),
    }
    for work, _ in cases.values():
        work()
    # In turns, so that a drift of the machine is shared.
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, (work, calls) in cases.items():
            began_s = time.process_time()
            for _ in range(calls):
                work()
            times[name].append((time.process_time() - began_s) / calls * _US_PER_S)
    return {name: statistics.median(found) for name, found in times.items()}


def _model(items: int, factors: int) -> ListModel:
    rng = np.random.default_rng(1)
    genres, tags = ("Comedy", "Drama", "Horror", "Romance"), ("gore", "fun", "noir")
    years = rng.integers(1950, 2026, items).tolist()
    records: list[Any] = [
        ItemRecord(None, {"genres": [genres[i % 4], genres[i % 3]], "year": year, "tag": tags[i % 3]})
        for i, year in enumerate(years)
    ]
    vocabulary = Vocabulary(map(str, range(items)))
    snapshot = ModelSnapshot(
        algorithm="made_up",
        settings={},
        users=Vocabulary(["0"]),
        items=vocabulary,
        user_factors=rng.normal(size=(1, factors)).astype(np.float32),
        item_factors=rng.normal(size=(items, factors)).astype(np.float32),
        user_bias=np.zeros(1, np.float32),
        item_bias=np.zeros(items, np.float32),
        global_mean=0.0,
        rating_min=1.0,
        rating_max=5.0,
        history=csr_array(np.zeros((1, items), np.float32)),
        popularity=rng.random(items).astype(np.float32),
        data_as_of="2026-01-01T00:00:00.000Z",
    )
    return ListModel(snapshot, of_model(vocabulary, ItemRecords.of(records)), FilterMasks())
