"""Each method of fold-in finds what its docstring states."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import ModelRefused
from service.models.files import artefact
from service.models.fold_in.fold_in import fold_in
from service.models.fold_in.representation import UserRepresentation
from service.models.fold_in.settings import METHODS, FoldIn
from service.models.history.user_history import UserHistory
from service.models.history.weights import HistoryWeights
from service.models.publication import publication
from service.models.snapshot import ModelSnapshot
from service.training.algorithms.popularity import PopularityConfig
from service.training.assembly import assemble
from service.training.interactions import Float64
from tests.reference.fold_in import implicit_loss, non_negative_epochs, rating_loss
from tests.support.interactions import rated

N_ITEMS, K = 12, 3
WEIGHTS = HistoryWeights(half_life=3.0, dislike_below=2.5, dislike_weight=-0.4)
IMPLICIT = {"reg": 0.05, "reg_exp": 0.7, "reg_pairs": 4.0, "mean_rating": 0.0}
RATING = {"reg_factors": 0.02, "reg_factors_fixed": 0.5, "reg_bias": 0.1, "reg_bias_fixed": 0.3, "biased": 1.0}
EPOCHS = {"reg": 0.05, "n_epochs": 7.0, "start": 0.5, "zero": 0.0, "biased": 0.0, "reg_bias": 0.1, "lr_bias": 0.02}


def snapshot_of(how: FoldIn, seed: int, **changes: object) -> ModelSnapshot:
    """Return a model of random tables, with ratings from 1 to 5."""
    rng = np.random.default_rng(seed)
    tables = rng.random((2, N_ITEMS, K)).astype(np.float32)
    data = rated([(0, item, float(1 + item % 5)) for item in range(N_ITEMS)])
    bias = rng.normal(0, 0.3, N_ITEMS).astype(np.float32)
    made = assemble(
        *(data, "made_up", PopularityConfig()),
        user_factors=np.zeros((1, K), np.float32),
        item_factors=tables[0],
        item_bias=bias,
        global_mean=3.2,
    )
    return dataclasses.replace(made, fold_in=how, **changes)  # type: ignore[arg-type]  # any of the fields


def precision_of(side: int, seed: int) -> Float64:
    table = np.random.default_rng(seed).normal(size=(side + 2, side))
    return table.T @ table


@st.composite
def histories(draw: st.DrawFn) -> UserHistory:
    rows = draw(st.lists(st.integers(0, N_ITEMS - 1), min_size=1, max_size=N_ITEMS, unique=True))
    values = draw(st.lists(st.floats(0, 6, width=32), min_size=len(rows), max_size=len(rows)))
    types = draw(st.lists(st.integers(0, 4), min_size=len(rows), max_size=len(rows)))
    return UserHistory(
        np.array(rows, np.int32), np.array(values, np.float32), np.array(types, np.uint8), np.arange(len(rows))
    )


def folded(snapshot: ModelSnapshot, history: UserHistory) -> UserRepresentation:
    user = fold_in(snapshot, history)
    assert user is not None
    return user


def least(loss: Callable[[Float64], float], at: Float64, seed: int) -> None:
    """Check that a convex loss has its minimum at a point, to the rounding of float32."""
    rng = np.random.default_rng(seed)
    found = loss(at)
    for size in (0.3, 0.01):
        for _ in range(6):
            assert loss(at + size * rng.normal(size=at.size)) > found - 1e-5 * max(1.0, abs(found))


@settings(deadline=None, max_examples=40)
@given(histories(), st.integers(0, 99), st.booleans(), st.sampled_from(["none", "diagonal", "full"]))
def test_implicit_factors_have_the_least_loss(history: UserHistory, seed: int, by_rating: bool, kind: str) -> None:
    """With ratings as confidences or without, dislikes, and fewer interactions than factors or more."""
    how = FoldIn("implicit_ridge", WEIGHTS, IMPLICIT | {"mean_rating": 3.0 if by_rating else 0.0})
    full = precision_of(K, seed)
    precision = {"none": None, "diagonal": full.diagonal()[np.newaxis], "full": full}[kind]
    snapshot = snapshot_of(how, seed, fold_in_precision=precision)
    user = folded(snapshot, history)
    assert (user.constant, user.seen.tolist()) == (snapshot.global_mean, sorted(history.rows.tolist()))
    least(lambda at: implicit_loss(snapshot, how, history, at), user.factors.astype(np.float64), seed)


@settings(deadline=None, max_examples=40)
@given(histories(), st.integers(0, 99), st.booleans(), st.booleans(), st.sampled_from([0.0, 0.4]))
def test_factors_of_ratings_have_the_least_loss(
    history: UserHistory, seed: int, is_implicit: bool, has_precision: bool, mean_bias: float
) -> None:
    """With implicit factors or without; ratings outside of the scale count as its ends."""
    how = FoldIn("rating_ridge", HistoryWeights(dislike_weight=1.0), RATING | {"mean_bias": mean_bias})
    changes: dict[str, object] = {"fold_in_precision": precision_of(K + 1, seed) if has_precision else None}
    if is_implicit:
        changes["input_factors"] = np.random.default_rng(seed + 1).random((N_ITEMS, K)).astype(np.float32)
    snapshot = snapshot_of(how, seed, **changes)
    user = folded(snapshot, history)
    assert user.seen.tolist() == sorted(history.rows.tolist())
    own = user.factors.astype(np.float64)
    if snapshot.input_factors is not None:
        own -= snapshot.input_factors[history.rows].sum(axis=0) / np.sqrt(history.rows.size)
    at = np.append(own, user.constant - snapshot.global_mean)
    least(lambda point: rating_loss(snapshot, how, history, point[:K], float(point[K])), at, seed)


@settings(deadline=None, max_examples=40)
@given(histories(), st.integers(0, 99), st.booleans())
def test_non_negative_factors_are_those_of_the_epochs(history: UserHistory, seed: int, biased: bool) -> None:
    """Taken rating by rating, with a bias or without."""
    how = FoldIn("non_negative", HistoryWeights(dislike_weight=1.0), EPOCHS | {"biased": float(biased)})
    changes = {} if biased else {"item_bias": np.zeros(N_ITEMS, np.float32), "global_mean": 0.0}
    snapshot = snapshot_of(how, seed, **changes)
    history = history._replace(values=np.clip(history.values, 1, 5))
    user = folded(snapshot, history)
    factors, bias = non_negative_epochs(snapshot, how, history)
    np.testing.assert_allclose(user.factors, factors, rtol=1e-4, atol=1e-6)
    assert user.constant == pytest.approx(snapshot.global_mean + bias, abs=1e-6)
    assert (user.factors >= 0).all()


@given(histories(), st.booleans(), st.booleans())
def test_residuals_are_ratings_above_biases(history: UserHistory, biased: bool, residuals: bool) -> None:
    """By hand, for each item of the user."""
    parameters = {"reg_bias": 0.1, "reg_bias_fixed": 2.0, "biased": float(biased), "residuals": float(residuals)}
    snapshot = snapshot_of(FoldIn("residual_sum", HistoryWeights(dislike_weight=1.0), parameters), 0)
    user = folded(snapshot, history)
    above = [
        min(max(float(value), 1.0), 5.0) - 3.2 - float(snapshot.item_bias[row])
        for row, value in zip(history.rows, history.values, strict=True)
    ]
    bias = sum(above) / (1.1 * len(above) + 2.0) if biased else 0.0
    assert user.constant == pytest.approx(3.2 + bias)
    assert user.inputs.tolist() == history.rows.tolist()
    np.testing.assert_allclose(user.weights, [one - bias for one in above] if residuals else np.ones(len(above)))


def test_inputs_of_negligible_weight_are_left_out() -> None:
    """They would change no score, and every one costs a row of neighbours."""
    snapshot = snapshot_of(FoldIn("neighbour_sum", HistoryWeights(half_life=0.4)), 0)
    rows = np.arange(N_ITEMS, dtype=np.int32)
    user = folded(snapshot, UserHistory(rows, np.ones(N_ITEMS, np.float32), np.ones(N_ITEMS, np.uint8), None))
    assert user.inputs.tolist() == list(range(2, N_ITEMS))
    assert user.seen.tolist() == list(range(N_ITEMS))


def test_without_regularisation_and_solution_there_are_no_factors() -> None:
    """More factors than interactions, and nothing that decides between them."""
    how = FoldIn("implicit_ridge", HistoryWeights(), IMPLICIT | {"reg": 0.0})
    snapshot = snapshot_of(how, 0)
    one = UserHistory(np.zeros(1, np.int32), np.ones(1, np.float32), np.ones(1, np.uint8), None)
    assert np.isfinite(folded(snapshot, one).factors).all()


@pytest.mark.parametrize("method", [method for method, names in METHODS.items() if names])
def test_a_method_without_its_parameters_is_refused(method: str) -> None:
    with pytest.raises(ModelRefused, match=f"The fold-in by {method} lacks"):
        FoldIn(method)


def test_a_precision_of_another_size_is_refused() -> None:
    with pytest.raises(ModelRefused, match="fold_in_precision has shape"):
        snapshot_of(FoldIn("decayed_sum"), 0, fold_in_precision=np.eye(K + 2))


def test_a_model_of_an_earlier_release_has_the_default_values_of_events(tmp_path: Path) -> None:
    """On its own rating scale."""
    data = rated([(0, 0, 0.0), (0, 1, 10.0)])
    version = publication.publish(tmp_path, assemble(data, "popularity", PopularityConfig()), data={}, measures={})
    path = tmp_path / version / artefact.MANIFEST
    manifest = json.loads(path.read_text(encoding="utf-8"))
    del manifest["event_values"]
    path.write_text(json.dumps(manifest), encoding="utf-8")
    snapshot = artefact.load(tmp_path / version)
    assert snapshot.event_values == (10.0, 10.0, 7.5, 5.0, 0.0)
    assert snapshot.value_of("view", None) == 5.0
    assert snapshot.value_of("view", 9.0) == 5.0
    assert snapshot.value_of("rating", 11.0) == 10.0
    assert snapshot.value_of("rating", None) == 10.0
