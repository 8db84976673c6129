import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.config import Config
from service.errors import RunError, TrainingDiverged
from service.models.neighbourhood import Neighbourhood
from service.training import memory_budget, pipeline
from service.training.algorithms.ease import ease, inversion
from service.training.algorithms.ease.ease import EaseConfig
from service.training.algorithms.registry import ConfiguredAlgorithm
from service.training.assembly import history
from service.training.data import datasets
from service.training.evaluation import split_dataset
from service.training.evaluation.comparison import compare
from service.training.evaluation.evaluation_protocol import EvaluationProtocol
from service.training.interactions import Interactions, no_progress
from tests.reference.item_to_item import ease_weights, scores_of

NOT_NEEDED = np.random.default_rng()


@pytest.fixture(scope="module")
def data() -> Interactions:
    return datasets.read("demo:90x150x2500")


def served(data: Interactions, config: EaseConfig) -> Neighbourhood:
    neighbourhood = ease.fit(data, config, NOT_NEEDED, no_progress).neighbourhood
    assert neighbourhood is not None
    return neighbourhood


@pytest.mark.parametrize(
    ("source", "reg"), [("demo:90x150x2500", 7.5), ("demo:40x150x1500", 7.5), ("demo:40x150x1500", 0.01)]
)
def test_all_weights_are_those_of_the_closed_form(source: str, reg: float) -> None:
    """Without a limit, the served weights are the whole solution, in float32, by way of items or of users."""
    data = datasets.read(source)
    config = EaseConfig(reg=reg, n_neighbours=1000)
    neighbourhood = served(data, config)
    assert (neighbourhood.over, neighbourhood.combine, neighbourhood.signal) == ("items", "sum", "seen")
    weights = neighbourhood.weights
    assert weights.dtype == np.float32
    assert weights.indices.dtype == np.int32
    assert weights.has_sorted_indices
    np.testing.assert_allclose(weights.toarray(), ease_weights(data, config), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("n_neighbours", [1, 3, 20, 149])
def test_the_largest_weights_are_kept(data: Interactions, n_neighbours: int) -> None:
    """`n_neighbours` per item on average, of either sign."""
    everything = served(data, EaseConfig(reg=7.5, n_neighbours=1000)).weights.toarray()
    kept = served(data, EaseConfig(reg=7.5, n_neighbours=n_neighbours)).weights
    assert kept.nnz == n_neighbours * len(data.items)
    least = np.sort(np.abs(everything), axis=None)[-kept.nnz]
    assert np.abs(kept.data).min() == least
    np.testing.assert_array_equal(kept.toarray(), np.where(np.abs(everything) >= least, everything, 0))
    assert (kept.data < 0).any()


@pytest.mark.parametrize("n_neighbours", [1000, 40])
def test_a_list_without_some_interactions_is_that_of_another_fit(data: Interactions, n_neighbours: int) -> None:
    """Only those of the listed user are left out; weights count from the least one of the full model on."""
    config = EaseConfig(reg=7.5, n_neighbours=n_neighbours)
    rng = np.random.default_rng(0)
    hidden = np.sort(rng.choice(len(data), 300, replace=False))
    snapshot, listed = ease.fit_measured(data, hidden, config, NOT_NEEDED, no_progress)
    assert snapshot.neighbourhood is not None
    whole = served(data, config).weights
    assert whole.data.tobytes() == snapshot.neighbourhood.weights.data.tobytes()
    least = np.abs(whole.data).min()
    is_hidden = np.zeros(len(data), dtype=bool)
    is_hidden[hidden] = True
    left = np.bincount(data.item_rows[~is_hidden], minlength=len(data.items))
    users = np.unique(data.user_rows[hidden]).astype(np.int64)[::5]
    for user, got in zip(users.tolist(), listed(users, 20), strict=True):
        kept = data.take(np.flatnonzero(~(is_hidden & (data.user_rows == user))))
        weights = ease_weights(kept, config)
        weights[np.abs(weights) < (least if n_neighbours < len(data.items) else 0)] = 0
        own = kept.item_rows[kept.user_rows == user]
        scores = scores_of(kept, config, weights, user)
        scores[own] = -np.inf
        order = np.lexsort((np.arange(scores.size), -left, -scores))[:20]
        np.testing.assert_allclose(scores[got], scores[order], rtol=1e-5, atol=1e-8)
        assert not set(got.tolist()) & set(own.tolist())


def test_a_training_fits_once(tmp_path: Path) -> None:
    """The published model is the measured one; the hidden interactions are left out without a second fit."""
    steps: list[tuple[str, int]] = []
    manifest = pipeline.train(
        Config(home=tmp_path),
        data="demo:90x150x2500",
        algorithm="ease",
        settings=["reg=7.5"],
        progress=lambda stage, done, _total: steps.append((stage, done)),
    )
    assert [done for stage, done in steps if stage == "fit"] == [0, 1, 2, 3, 4]
    assert manifest["measures"]["holdout"]["note"].startswith("Each user's list is that of a model without")
    protocol = EvaluationProtocol(folds=10)
    cut = split_dataset.split(datasets.read("demo:90x150x2500"), protocol)
    found = compare(cut, [ConfiguredAlgorithm.parse("ease", ["reg=7.5"])], protocol)
    by_fits = found["results"][0]["measures"]["ndcg@10"]["mean"]
    assert manifest["measures"]["ndcg@10"] == pytest.approx(by_fits, abs=0.1)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_both_ways_to_the_inverse_agree(dtype: type[np.floating[Any]]) -> None:
    """By way of items and of users, also if a user or an item has no interactions; the result is symmetric."""
    data = datasets.read("demo:70x160x2600")
    seen = history(data.take(np.flatnonzero((data.user_rows != 3) & (data.item_rows != 5))))
    by_items, by_users = (way(seen, 20.0, dtype, no_progress) for way in (inversion.by_items, inversion.by_users))
    assert by_users.dtype == dtype
    np.testing.assert_array_equal(by_users, by_users.T)
    np.testing.assert_allclose(by_users, by_items, rtol=0, atol=1e-13 if dtype is np.float64 else 1e-7)


def test_the_quicker_way_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """By way of users if these are fewer than half of the items."""
    taken: list[str] = []
    for name in ("by_items", "by_users"):
        way = getattr(inversion, name)

        def noted(*args: Any, name: str = name, way: Any = way) -> Any:
            taken.append(name)
            return way(*args)

        monkeypatch.setattr(inversion, name, noted)
    for source in ("demo:90x150x2500", "demo:40x150x1500"):
        ease.fit(datasets.read(source), EaseConfig(), NOT_NEEDED, no_progress)
    assert taken == ["by_items", "by_users"]


def test_ties_keep_the_lower_rows() -> None:
    """All six weights between three items are the same, and two of them fit."""
    weights = ease.largest_weights(np.full((3, 3), 0.5) + 0.5 * np.eye(3), 2).weights.tocoo()
    assert list(zip(*(axis.tolist() for axis in weights.coords), strict=True)) == [(0, 1), (0, 2)]
    assert weights.data.tolist() == [-0.5, -0.5]


def test_an_item_that_nobody_has_seen_has_no_neighbours(data: Interactions) -> None:
    """It is no neighbour, and has none."""
    left = data.take(np.flatnonzero(data.item_rows != 11))
    weights = served(left, EaseConfig(n_neighbours=1000)).weights.toarray()
    assert not weights[11].any()
    assert not weights[:, 11].any()


def test_single_precision_is_close(data: Interactions) -> None:
    """Above the limit of double precision, single precision gives nearly the same weights."""
    config = EaseConfig(reg=50, n_neighbours=1000)
    snapshot, _ = ease.solve(data, config, no_progress, double_limit_bytes=0)
    assert snapshot.neighbourhood is not None
    np.testing.assert_allclose(snapshot.neighbourhood.weights.toarray(), ease_weights(data, config), atol=2e-5)


def test_too_many_items_for_the_memory_are_refused_before_the_work(
    data: Interactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the available memory."""
    monkeypatch.setattr(memory_budget, "available_bytes", lambda: 100_000)
    stages: list[str] = []
    with pytest.raises(RunError, match=re.escape("for 150 items, and there are 0.0 GiB")):
        ease.fit(data, EaseConfig(), NOT_NEEDED, lambda stage, _done, _total: stages.append(stage))
    assert not stages


def test_a_matrix_without_an_inverse_is_an_error() -> None:
    """It names the setting that helps."""
    matrix = -np.eye(3)
    with pytest.raises(TrainingDiverged, match="raise reg"):
        inversion.invert(matrix, 500.0, no_progress)
