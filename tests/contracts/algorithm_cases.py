"""Every algorithm as a case of its contract, and what the tests of it share. One case in `CASES` adds another."""

import dataclasses
import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from service.models.files import artefact
from service.models.snapshot import ModelSnapshot
from service.models.vocabulary import Vocabulary
from service.training.algorithms import registry
from service.training.algorithms.registry import ConfiguredAlgorithm
from service.training.data import datasets
from service.training.interactions import Interactions, ReadReport, no_progress
from tests.support.models.installed_algorithms import is_installed


@dataclass(frozen=True)
class Case:
    """One algorithm under the contract.

    Attributes:
        name: The name on the command line.
        learning: Settings that learn the checkerboard, or quick ones if the algorithm cannot.
        refused: Settings with a value to refuse.
        diverging: Settings that diverge, beginning with the one that the error names; empty if none can.
        personal: Whether it distinguishes users by their ratings, so that it learns the checkerboard.
        seeded: Whether it draws random numbers.
        unknown: Its prediction for a user without ratings: the item's baseline, or the mean of all ratings.
    """

    name: str
    learning: tuple[str, ...]
    refused: tuple[str, ...]
    diverging: tuple[str, ...] = ()
    personal: bool = True
    seeded: bool = True
    unknown: Literal["baseline", "mean"] = "baseline"


CASES = [
    Case(
        "svd",
        ("n_factors=4", "n_epochs=400", "lr_all=0.02"),
        refused=("n_factors=0", "lr_all=-1", "reg_all=nan"),
        diverging=("lr_all=9",),
    ),
    Case(
        "svdpp",
        ("n_factors=4", "n_epochs=400", "lr_all=0.02"),
        refused=("n_factors=0", "lr_yj=-1", "reg_yj=nan"),
        diverging=("lr_all=9",),
    ),
    Case(
        "nmf",
        ("n_factors=4", "n_epochs=400"),
        refused=("n_factors=0", "reg_pu=-1", "init_high=0", "init_low=-1"),
        diverging=("lr_bu=9", "biased=true"),
        unknown="mean",
    ),
    Case("bayesian_mf", ("n_factors=2", "n_samples=150"), refused=("n_factors=0", "n_samples=0", "implicit=maybe")),
    Case("slope_one", (), refused=("n_neighbours=0",), personal=False, seeded=False, unknown="mean"),
    Case(
        "knn_basic",
        ("k=10", "n_neighbours=10"),
        refused=("k=0", "min_k=0", "similarity=jaccard", "user_based=perhaps", "min_support=0", "shrinkage=-1"),
        diverging=("bsl_learning_rate=9", "bsl_method=sgd", "similarity=pearson_baseline"),
        seeded=False,
        unknown="mean",
    ),
    Case("knn_means", ("k=10", "n_neighbours=10"), refused=("k=0",), seeded=False, unknown="mean"),
    Case("knn_baseline", ("k=10", "n_neighbours=10"), refused=("bsl_method=svd",), seeded=False),
    Case(
        "baseline",
        (),
        refused=("n_epochs=0", "method=svd"),
        diverging=("learning_rate=9", "method=sgd"),
        personal=False,
        seeded=False,
    ),
    Case("ials", ("n_factors=2",), refused=("n_factors=0", "reg=0", "unobserved_weight=-1", "confidence=likes")),
    Case(
        "softmax",
        ("n_factors=2", "batch_size=64", "n_epochs=40", "temperature=0.5"),
        refused=("temperature=0", "n_negatives=0", "batch_size=0", "lr=-1"),
    ),
    Case("ease", (), refused=("reg=0", "n_neighbours=0"), seeded=False),
    Case(
        "item_knn", (), refused=("n_neighbours=0", "similarity=pearson", "weighting=idf", "asymmetry=2"), seeded=False
    ),
    Case("pure_svd", ("n_factors=2",), refused=("n_factors=0", "user_exponent=-1", "item_exponent=3")),
    Case(
        "next_item",
        ("half_life=0", "reverse=1", "look_ahead=0", "form=lists"),
        refused=("half_life=-1", "reg=0", "look_ahead=1", "reverse=2", "window=0", "n_neighbours=0", "form=tables"),
        seeded=False,
    ),
    Case("popularity", (), refused=("half_life_days=0", "window_days=0"), personal=False, seeded=False),
    Case(
        "sequence",
        ("n_factors=8", "n_blocks=1", "n_epochs=10", "window=30", "lr=0.03", "dropout=0", "n_negatives=0"),
        refused=("n_factors=1", "n_heads=0", "window=0", "block=square", "dropout=1", "lr=0", "n_negatives=-1"),
    ),
    Case(
        "two_tower",
        ("n_factors=4", "hidden_units=32", "width=8", "lr=0.01", "n_epochs=20", "temperature=0.5", "batch_size=256"),
        refused=("temperature=0", "n_drawn=-1", "half_life=-1", "window=0", "batch_size=0"),
    ),
    Case(
        "two_tower_rating",
        ("n_factors=4", "hidden_units=32", "width=8", "lr=0.01", "n_epochs=40"),
        refused=("n_factors=0", "hidden_units=1", "width=0", "dropout=1", "window=0", "lr=0", "patience=-1"),
    ),
    Case(
        "rank_net",
        (
            *("n_factors=4", "hidden_units=32", "width=8", "lr=0.02", "n_epochs=20", "temperature=1", "batch_size=128"),
            "ranker_share=1",
        ),
        refused=("n_candidates=0", "n_others=0", "similarity_weight=-1", "ranker_share=2", "ranker_dropout=1"),
    ),
    Case(
        "neural_mf",
        ("n_factors=4", "width=8", "lr=0.01", "n_epochs=20", "batch_size=64", "reg=0.1", "ranker_share=0.5"),
        refused=("n_factors=0", "n_candidates=0", "n_others=0", "reg=-1", "window=0", "ranker_dropout=1"),
    ),
]
# Networks need PyTorch, which is an extra.
ENROLLED = [case for case in CASES if is_installed(case.name)]
RATING = [case for case in ENROLLED if registry.get(case.name).kind == "rating"]
RANKING = [case for case in ENROLLED if registry.get(case.name).kind == "ranking"]


SMALL = "demo:60x40x900"


def of(cases: Iterable[Case]) -> pytest.MarkDecorator:
    """Run a test for some algorithms instead of all."""
    chosen = list(cases)
    return pytest.mark.parametrize("case", chosen, ids=[case.name for case in chosen])


def interactions(users: NDArray[np.int64], items: NDArray[np.int64], ratings: NDArray[np.float64]) -> Interactions:
    return Interactions(
        users=Vocabulary([f"u{i}" for i in range(int(users.max()) + 1)]),
        items=Vocabulary([f"i{i}" for i in range(int(items.max()) + 1)]),
        user_rows=users.astype(np.int32),
        item_rows=items.astype(np.int32),
        ratings=ratings.astype(np.float32),
        timestamps=None,
        rating_min=1.0,
        rating_max=5.0,
        fingerprint="sha256:0",
        report=ReadReport(source="made up"),
    )


def checkerboard(n: int = 40) -> tuple[Interactions, Interactions]:
    """Return known and hidden squares (3 of 10) of a checkerboard: 5 if user and item are both even or odd, else 1.

    Biases cannot learn it, because all means are equal.
    """
    users, items = (axis.ravel() for axis in np.mgrid[0:n, 0:n])
    ratings = np.where((users + items) % 2 == 0, 5.0, 1.0)
    known = np.random.default_rng(0).random(users.size) > 0.3
    data = interactions(users, items, ratings)
    return data.take(np.flatnonzero(known)), data.take(np.flatnonzero(~known))


def fitted(case: Case, data: Interactions, *, seed: int = 0, more: tuple[str, ...] = ()) -> ModelSnapshot:
    candidate = ConfiguredAlgorithm.parse(case.name, (*case.learning, *more))
    return candidate.algorithm.fit(data, candidate.config, np.random.default_rng(seed), no_progress)


@functools.cache
def fitted_once(case: Case) -> ModelSnapshot:
    """Return the model of a small generated set, fitted once for all tests that only read it."""
    return fitted(case, datasets.read(SMALL))


@functools.cache
def fitted_on_checkerboard(case: Case) -> ModelSnapshot:
    """Return the model of the known squares, fitted once for all tests that only read it."""
    return fitted(case, checkerboard()[0])


def predicted(case: Case, snapshot: ModelSnapshot, users: Any, items: Any) -> NDArray[np.float64]:
    pairs = (np.ascontiguousarray(rows, dtype=np.int32) for rows in (users, items))
    return registry.get(case.name).predict(snapshot, *pairs)


def every_bit(snapshot: ModelSnapshot) -> dict[str, bytes]:
    return {name: np.ascontiguousarray(array).tobytes() for name, array in artefact._arrays_of(snapshot).items()}


def on_another_scale(data: Interactions, factor: float, shift: float = 0.0) -> Interactions:
    ratings = (data.ratings.astype(np.float64) * factor + shift).astype(np.float32)
    low, high = float(ratings.min()), float(ratings.max())
    return dataclasses.replace(data, ratings=ratings, rating_min=low, rating_max=high)
