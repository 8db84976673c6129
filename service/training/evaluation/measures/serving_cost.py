"""The cost of serving a model: a list from its arrays against a list predicted pair by pair.

Times are wall-clock medians of one list at a time, with everything warm.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle
from typing import Final, NamedTuple

import numpy as np

from service.models.ranking.personal_lists import personal
from service.models.ranking.scoring import TopNRequest, exact_scores
from service.models.snapshot import ModelSnapshot
from service.training.algorithms.registry import ConfiguredAlgorithm
from service.training.interactions import Int64

LIST_LENGTH: Final = 10
_MAX_USERS: Final = 100
_N_PAIRS: Final = 200
_MIN_CALLS: Final = 3
_TIME_LIMIT_S: Final = 0.25


class ServingCost(NamedTuple):
    """The cost of a list of `LIST_LENGTH`."""

    list_us: float  # microseconds as the service makes it, the median over some users
    pairwise_list_us: float  # microseconds if unseen items were predicted one by one, extrapolated from sampled pairs


def measure(candidate: ConfiguredAlgorithm, snapshot: ModelSnapshot, user_rows: Int64) -> ServingCost:
    """Measure both ways to a list, for some users chosen evenly from `user_rows`, int64 (m,), at least one."""
    chosen = user_rows[np.linspace(0, user_rows.size - 1, min(user_rows.size, _MAX_USERS)).astype(np.int64)]
    users = chosen.tolist()
    items = np.random.default_rng(0).integers(0, len(snapshot.items), _N_PAIRS).tolist()
    predict = _rank_pair if candidate.algorithm.kind == "ranking" else partial(_predict_pair, candidate)
    lists = [partial(personal, snapshot, [TopNRequest(user, LIST_LENGTH)]) for user in users]
    pairs = [partial(predict, snapshot, user, item) for user, item in zip(cycle(users), items, strict=False)]
    unseen = len(snapshot.items) - np.diff(snapshot.history.indptr)[chosen]
    return ServingCost(1e6 * _median_s(lists), 1e6 * _median_s(pairs) * float(np.median(unseen)))


def _predict_pair(candidate: ConfiguredAlgorithm, snapshot: ModelSnapshot, user_row: int, item_row: int) -> object:
    return candidate.algorithm.predict(
        snapshot, np.array([user_row], dtype=np.int32), np.array([item_row], dtype=np.int32)
    )


def _rank_pair(snapshot: ModelSnapshot, user_row: int, item_row: int) -> object:
    return exact_scores(snapshot, user_row, np.array([item_row]))


def _median_s(calls: Sequence[Callable[[], object]]) -> float:
    """Return the median seconds of the calls, or of as many as fit into `_TIME_LIMIT_S`."""
    calls[0]()
    seconds: list[float] = []
    for call in calls:
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
        if len(seconds) >= _MIN_CALLS and sum(seconds) > _TIME_LIMIT_S:
            break
    return float(np.median(seconds))
