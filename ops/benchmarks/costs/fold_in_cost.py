"""The processor time of a fold-in: of one user's representation, by the method and the kind of model.

Histories differ from call to call, so that rows of the item table are not in cache. Linear algebra runs on one thread,
as in a replica.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from threadpoolctl import threadpool_limits

from ops.benchmarks.costs.random_towers import WINDOW, history_tower, sequence_tower
from service.models.fold_in.fold_in import fold_in
from service.models.fold_in.settings import METHODS, NETWORK, FoldIn
from service.models.history.user_history import UserHistory
from service.models.history.weights import HistoryWeights
from service.models.networks.network import UserTower
from service.models.networks.networks import Networks
from service.models.snapshot import ModelSnapshot
from service.models.vocabulary import Vocabulary

_NS_PER_US: Final = 1_000
_N_HISTORIES: Final = 256
# Values of all parameters of the methods; the time does not depend on them.
_PARAMETERS: Final = {
    "reg": 0.01,
    "reg_exp": 1.0,
    "reg_pairs": 100.0,
    "mean_rating": 0.0,
    "norm_exponent": 1.0,
    "reg_factors": 0.02,
    "reg_factors_fixed": 10.0,
    "reg_bias": 0.02,
    "reg_bias_fixed": 10.0,
    "biased": 1.0,
    "mean_bias": 0.1,
    "residuals": 1.0,
    "n_epochs": 50.0,
    "start": 0.5,
    "zero": 0.0,
    "lr_bias": 0.005,
}
_WEIGHTED: Final = HistoryWeights(half_life=4.0, dislike_below=1.8, dislike_weight=-0.2)


class Case(NamedTuple):
    """A kind of model.

    Attributes:
        name: The algorithms of the kind.
        method: One of `METHODS`.
        with_inputs: Whether the model has input factors.
        with_precision: Whether the model has a precision.
        n_factors: Instead of the number of factors of the benchmark.
        tower: Returns the user tower of a network, and the width of the items' inputs.
    """

    name: str
    method: str
    with_inputs: bool = False
    with_precision: bool = False
    n_factors: int | None = None
    tower: Callable[[int, np.random.Generator], tuple[UserTower, int]] | None = None

    @property
    def work(self) -> Literal["sum", "solve", "network"]:
        """Whether a fold-in only adds, solves equations, or evaluates a network."""
        if self.method == NETWORK:
            return "network"
        return "sum" if self.n_factors == 0 or self.method == "decayed_sum" else "solve"


CASES: Final = (
    Case("pure_svd, softmax", "decayed_sum", with_inputs=True),
    Case("next_item, ease, item_knn", "neighbour_sum", n_factors=0),
    Case("knn over items, slope_one", "residual_sum", n_factors=0),
    Case("baseline", "rating_ridge", n_factors=0),
    Case("ials", "implicit_ridge", with_precision=True),
    Case("svd", "rating_ridge"),
    Case("svdpp", "rating_ridge", with_inputs=True),
    Case("bayesian_mf", "rating_ridge", with_precision=True),
    Case("nmf", "non_negative"),
    Case("two_tower", NETWORK, n_factors=32, tower=history_tower),
    Case("sequence", NETWORK, n_factors=64, tower=sequence_tower),
)


class Cost(NamedTuple):
    """Microseconds of processor time; of the rounds the median."""

    median_us: float
    p99_us: float


def measure(n_items: int, n_factors: int, n_interactions: int, calls: int, rounds: int) -> dict[str, Cost]:
    """Return the cost of a fold-in by the name of the case, from rounds of `calls` each."""
    rng = np.random.default_rng(0)
    histories = [_history(n_items, n_interactions, rng) for _ in range(_N_HISTORIES)]
    with threadpool_limits(1):
        return {case.name: _cost(_model(case, n_items, n_factors, rng), histories, calls, rounds) for case in CASES}


def _cost(model: ModelSnapshot, histories: list[UserHistory], calls: int, rounds: int) -> Cost:
    def spent_ns(work: Callable[[UserHistory], object]) -> Iterator[int]:
        for n in range(calls):
            history = histories[n % len(histories)]
            began = time.thread_time_ns()
            work(history)
            yield time.thread_time_ns() - began

    for history in histories:
        fold_in(model, history)
    clock_ns = float(np.median(list(spent_ns(lambda _: None))))
    found_ns = np.array([list(spent_ns(lambda history: fold_in(model, history))) for _ in range(rounds)])
    median_us, p99_us = np.median(np.quantile(found_ns - clock_ns, (0.5, 0.99), axis=1), axis=1) / _NS_PER_US
    return Cost(float(median_us), float(p99_us))


def _history(n_items: int, n_interactions: int, rng: np.random.Generator) -> UserHistory:
    rows = rng.choice(n_items, n_interactions, replace=False).astype(np.int32)
    values = rng.integers(1, 6, n_interactions).astype(np.float32)
    return UserHistory(rows, values, np.zeros(n_interactions, np.uint8), np.arange(n_interactions, dtype=np.int64))


def _model(case: Case, n_items: int, n_factors: int, rng: np.random.Generator) -> ModelSnapshot:
    k = n_factors if case.n_factors is None else case.n_factors

    def table() -> NDArray[np.float32]:
        drawn = np.abs(rng.standard_normal((n_items, k), dtype=np.float32))
        drawn /= np.float32(max(1, k) ** 0.5)
        return drawn

    no_history: Any = coo_array((1, n_items), dtype=np.float32).tocsr()
    is_weighted = case.method not in {"rating_ridge", "non_negative", "residual_sum", NETWORK}
    parameters = {name: value for name, value in _PARAMETERS.items() if name in METHODS[case.method]}
    if case.method == "decayed_sum":
        parameters["norm_exponent"] = _PARAMETERS["norm_exponent"]
    snapshot = ModelSnapshot(
        algorithm=case.name,
        settings={},
        users=Vocabulary(["u"]),
        items=Vocabulary(map(str, range(n_items))),
        user_factors=np.zeros((1, k), np.float32),
        item_factors=table(),
        user_bias=np.zeros(1, np.float32),
        item_bias=np.zeros(n_items, np.float32),
        global_mean=3.0,
        rating_min=1.0,
        rating_max=5.0,
        history=no_history,
        popularity=np.zeros(n_items, np.float32),
        data_as_of="2026-01-01T00:00:00.000Z",
    )
    weights = _WEIGHTED if is_weighted else HistoryWeights(dislike_weight=1.0)
    networks, inputs = None, table() if case.with_inputs else None
    if case.tower is not None:
        tower, width = case.tower(k, rng)
        weights = HistoryWeights(window=WINDOW)
        networks, inputs = Networks(tower), rng.standard_normal((n_items, width), dtype=np.float32)
    side = k + (case.method == "rating_ridge")
    return dataclasses.replace(
        snapshot,
        fold_in=FoldIn(case.method, weights, parameters),
        networks=networks,
        input_factors=inputs,
        fold_in_precision=np.eye(1 if case.method == "implicit_ridge" else side, side) if case.with_precision else None,
    )
