"""Small models with a catalogue and filters, for tests of lists."""

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from service.lists.filters.masks import FilterMasks
from service.lists.pipeline import ListModel
from service.models.fold_in.settings import FoldIn
from service.models.history.weights import HistoryWeights
from service.models.neighbourhood import Neighbourhood
from service.models.networks.networks import Networks
from service.models.snapshot import ModelSnapshot
from service.models.vocabulary import Vocabulary
from tests.support.models.attribute_columns import Attributes, ListedColumns
from tests.support.networks.tiny_networks import DistanceRanker, MeanTower

N_USERS = 3
SIZES = (7, 60, 1500)


class ListCatalogue(ListedColumns):
    """Attributes with hidden items."""

    def __init__(self, items: list[Attributes], hidden: list[int]) -> None:
        super().__init__(items)
        self.items = items
        self.hidden = np.array(hidden, dtype=np.int64)

    def unavailable_rows(self, now_s: float) -> NDArray[np.int64]:
        assert now_s == 7.0
        return self.hidden


class World(NamedTuple):
    """A model, its catalogue and the masks of its filters."""

    model: ListModel
    catalogue: ListCatalogue


@cache
def world(n_items: int, kind: str, hides: bool) -> World:
    """Return a world of one of the kinds factors, neighbours and ranked (factors with a ranker).

    Scores are from a few small integers, so that many are equal.
    """
    rng = np.random.default_rng(n_items)
    k = 0 if kind == "neighbours" else 4
    dense = rng.random((N_USERS, n_items)) < 0.2
    history = csr_array(dense.astype(np.float32))
    history.indices = history.indices.astype(np.int32)
    neighbourhood = None
    if kind == "neighbours":
        table = (rng.random((n_items, n_items)) < 0.3) * rng.integers(-1, 3, (n_items, n_items))
        weights = csr_array(table.astype(np.float32))
        weights.indices = weights.indices.astype(np.int32)
        neighbourhood = Neighbourhood("items", "sum", "seen", weights)
    snapshot = ModelSnapshot(
        algorithm="made_up",
        networks=networks(k) if kind == "ranked" else None,
        settings={},
        users=Vocabulary(f"u{row}" for row in range(N_USERS)),
        items=Vocabulary(f"i{row}" for row in rng.permutation(n_items)),
        user_factors=rng.integers(-1, 2, (N_USERS, k)).astype(np.float32),
        item_factors=rng.integers(-1, 2, (n_items, k)).astype(np.float32),
        user_bias=np.array([0.1, -0.3, 0], np.float32),
        item_bias=(rng.integers(-1, 2, n_items) / 3).astype(np.float32),
        global_mean=0.5,
        rating_min=1.0,
        rating_max=5.0,
        history=history,
        popularity=rng.integers(0, 6, n_items).astype(np.float32),
        data_as_of="2026-01-01T00:00:00.000Z",
        neighbourhood=neighbourhood,
        input_factors=rng.integers(-1, 2, (n_items, k)).astype(np.float32) if k else None,
        fold_in=FoldIn("decayed_sum" if k else "neighbour_sum", HistoryWeights(half_life=2.0)),
    )
    genres = np.array(["Comedy", "Drama", "Horror"])
    attributes: list[Attributes] = [
        {
            "genres": genres[rng.random(3) < 0.4].tolist(),
            "year": int(rng.integers(1980, 2000)),
            "rare": rng.random() < 0.04,
        }
        for _ in range(n_items)
    ]
    hidden = sorted(rng.permutation(n_items)[: n_items // 9].tolist()) if hides else []
    catalogue = ListCatalogue(attributes, hidden)
    return World(ListModel(snapshot, catalogue, FilterMasks()), catalogue)


def networks(k: int) -> Networks:
    """Return a ranker for k factors, of which the first one does not count; users are folded in without the tower."""
    tower = MeanTower(np.eye(k, dtype=np.float32), np.zeros((1, k), np.float32))
    return Networks(tower, ranker=DistanceRanker(np.arange(k, dtype=np.float32)))
