"""The lists of a new model beside those of the active one, on one hold-out.

The active model has usually learnt what the new one holds out. Its published tables are therefore compared only on
held-out interactions that it has not learnt: they show what activating the new model changes, bad data included. What
a user did since its training is folded in, as the service does with live events. If there are too few of these
interactions, a model with its algorithm and settings is fitted on the training side: that compares the algorithms on
the same data, without a leak. A fit that would take longer than the time given is not made.
"""

from collections.abc import Sequence
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.errors import RecollectError
from service.models.fold_in.fold_in import fold_in
from service.models.history.user_history import PURCHASE, RATING, UserHistory
from service.models.ranking.personal_lists import personal
from service.models.ranking.scoring import TopNRequest
from service.models.snapshot import ModelSnapshot
from service.training import hyperparameters
from service.training.algorithms import registry
from service.training.algorithms.registry import ConfiguredAlgorithm
from service.training.evaluation.measures.relevance import relevant_items
from service.training.evaluation.top_n_lists import NO_ITEM, top_n_lists
from service.training.hold_out.list_quality import ListQuality, quality, quality_of
from service.training.hold_out.measures import HoldOutMeasures
from service.training.hold_out.split import HoldOut
from service.training.interactions import Int64, Interactions, no_progress
from service.training.promotion.incumbent import Incumbent, rows_in
from service.training.promotion.verdict import ENOUGH, ListComparison
from service.training.selection.cost_limit import CostLimit

_LENGTH: Final = 20
_BATCH: Final = 256
# A fold-in takes up to a millisecond.
_MOST_USERS: Final = 2_000


def compare_lists(
    incumbent: Incumbent,
    candidate: ConfiguredAlgorithm,
    held_out: HoldOut,
    measured: HoldOutMeasures,
    *,
    limit_s: float,
    seed: np.random.SeedSequence,
    others: Sequence[tuple[ConfiguredAlgorithm, ListQuality]] = (),
) -> ListComparison | None:
    """Compare a measured candidate with the active model; None if that is not possible, or both are the same fit.

    Args:
        limit_s: How long a fit with the active model's settings may take.
        seed: Decides everything random in it.
        others: What has been measured on the same hold-out; none of these is fitted again.
    """
    published = _with_published_tables(incumbent, held_out, measured)
    if published is not None:
        return published
    again = _configured(incumbent.snapshot)
    if again is None or (again.algorithm is candidate.algorithm and again.config == candidate.config):
        return None
    n = len(held_out.hidden)
    for other, other_quality in others:
        if other.algorithm is again.algorithm and other.config == again.config:
            return ListComparison(measured.quality.ndcg, other_quality.ndcg, n, "refitted")
    if again.algorithm.kind == "rating" and held_out.train.all_equal:
        return None
    try:
        snapshot = again.algorithm.fit(
            held_out.train, again.config, np.random.default_rng(seed), CostLimit(limit_s, no_progress)
        )
    except (RecollectError, MemoryError):
        return None
    own = quality(partial(top_n_lists, snapshot), measured.relevance)
    return ListComparison(measured.quality.ndcg, own.ndcg, n, "refitted")


def _configured(snapshot: ModelSnapshot) -> ConfiguredAlgorithm | None:
    """Return the algorithm of a model with its settings; None if this release has none of that name or settings."""
    try:
        algorithm = registry.get(snapshot.algorithm)
        config = hyperparameters.from_json(algorithm.config, snapshot.settings)
    except RecollectError:
        return None
    return ConfiguredAlgorithm(snapshot.algorithm, config, algorithm)


def _with_published_tables(incumbent: Incumbent, held_out: HoldOut, measured: HoldOutMeasures) -> ListComparison | None:
    """Compare on the held-out interactions that the active model has not learnt, of users whom it knows."""
    positions = incumbent.unlearnt(held_out.hidden)
    judged = np.isin(held_out.hidden.user_rows[positions], measured.relevance.user_rows)
    positions = positions[judged]
    if positions.size < ENOUGH:
        return None
    fresh = relevant_items(held_out.hidden.take(positions)).sample(_MOST_USERS, np.random.default_rng(0))
    places = np.searchsorted(measured.relevance.user_rows, fresh.user_rows)
    new = quality_of(measured.quality.lists[places], fresh)
    own = quality_of(_lists(incumbent.snapshot, held_out, fresh.user_rows), fresh)
    return ListComparison(new.ndcg, own.ndcg, int(fresh.counts.sum()), "published")


def _lists(snapshot: ModelSnapshot, held_out: HoldOut, user_rows: Int64) -> NDArray[np.int32]:
    """Return the active model's lists for users of a hold-out, int32 (m, 20), in the rows of the hold-out.

    What a user has on the training side is folded in and left out, as the service does with live events.
    """
    train = held_out.train
    own_users = rows_in(snapshot.users, train.users)
    own_items = rows_in(snapshot.items, train.items)
    item_of = np.full(len(snapshot.items) + 1, NO_ITEM, dtype=np.int32)  # the last place is for the end of a list
    item_of[own_items[own_items >= 0]] = np.flatnonzero(own_items >= 0)
    by_user = np.lexsort((*(() if train.timestamps is None else (train.timestamps,)), train.user_rows))
    starts = np.searchsorted(train.user_rows[by_user], np.arange(len(train.users) + 1))
    lists = np.full((user_rows.size, _LENGTH), NO_ITEM, dtype=np.int32)

    def request(user_row: int) -> TopNRequest:
        places = by_user[starts[user_row] : starts[user_row + 1]]
        places = places[own_items[train.item_rows[places]] >= 0]
        history = _history(train, places, own_items)
        return TopNRequest(
            int(own_users[user_row]),
            _LENGTH,
            exclude=history.rows.astype(np.int64),
            user=fold_in(snapshot, history),
        )

    for start in range(0, user_rows.size, _BATCH):
        requests = [request(row) for row in user_rows[start : start + _BATCH].tolist()]
        for index, ranking in enumerate(personal(snapshot, requests), start):
            lists[index, : ranking.rows.size] = item_of[ranking.rows]
    return lists


def _history(data: Interactions, places: Int64, item_rows: NDArray[np.int32]) -> UserHistory:
    """Return the interactions at some places, oldest first, as a history in other item rows."""
    if data.types is not None:
        types = data.types[places]
    else:
        is_rated = np.full(places.size, data.rated) if isinstance(data.rated, bool) else data.rated[places]
        types = np.where(is_rated, RATING, PURCHASE).astype(np.uint8)
    times_s = None if data.timestamps is None else data.timestamps[places]
    return UserHistory(item_rows[data.item_rows[places]], data.ratings[places], types, times_s)
