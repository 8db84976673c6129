"""The ranker over pairs: its formula, its independence of other items, and what it refuses."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.errors import ModelRefused
from service.models.networks import kinds
from service.models.networks.pair_ranker import PairRanker
from tests.reference.pair_ranker import score

K = 6


def weights(seed: int = 0, units: tuple[int, ...] = (8, 4)) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> NDArray[np.float32]:
        return rng.normal(size=shape).astype(np.float32)

    names = ("of_users", "of_items", "of_products")
    found = {"products": normal(K), "bias": normal(units[0])} | {name: normal(K, units[0]) for name in names}
    for number, (before, after) in enumerate(zip(units, (*units[1:], 1), strict=True), 1):
        found[f"weight_{number}"], found[f"bias_{number}"] = normal(before, after), normal(after)
    return found


def vectors(n: int, seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(n, K)).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 9), st.sampled_from(["elu", "relu"]), st.sampled_from([(8, 4), (5,), (128, 64, 32)]))
def test_scores_are_those_of_the_formula(seed: int, activation: str, units: tuple[int, ...]) -> None:
    """For each pair, in any number of layers."""
    tensors = weights(seed, units)
    user, items = vectors(1, seed)[0], vectors(7, seed + 1)
    found = PairRanker(tensors, activation, 10, 0.5).scores(user, items)
    expected = [score(tensors, activation, 0.5, user.tolist(), item.tolist()) for item in items]
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)


def test_a_score_does_not_depend_on_the_other_items() -> None:
    """Some items in any order have the scores, to the last bit, that they have among all."""
    ranker = PairRanker(weights(3, (128, 64, 32)), "elu", 10, 0.0)
    user, items = vectors(1)[0], vectors(150)
    among_all = ranker.scores(user, items)
    rng = np.random.default_rng(0)
    for n in (1, 2, 7, 64, 149, 150):
        some = rng.permutation(150)[:n]
        assert ranker.scores(user, items[some]).tolist() == among_all[some].tolist()


def test_no_items_have_no_scores_and_large_logits_do_not_overflow() -> None:
    """Between 0 and 1 in any case."""
    tensors = weights() | {"products": np.full(K, 1e4, np.float32)}
    ranker = PairRanker(tensors, "elu", 10, 0.0)
    assert ranker.scores(vectors(1)[0], vectors(0)).shape == (0,)
    found = ranker.scores(np.ones(K, np.float32), np.array([[1] * K, [-1] * K], np.float32))
    assert found.tolist() == [1.0, 0.0]


def test_a_published_ranker_is_read_back() -> None:
    """With the same scores, by its kind."""
    ranker = PairRanker(weights(), "relu", 77, -1.5)
    read = kinds.network("pair_ranker", ranker.tensors(), ranker.settings())
    assert read.n_candidates == 77
    assert read.scores(vectors(1)[0], vectors(9)).tolist() == ranker.scores(vectors(1)[0], vectors(9)).tolist()


@pytest.mark.parametrize(
    ("change", "settings_"),
    [
        ({"products": None}, {}),
        ({"products": np.zeros(K + 1, np.float32)}, {}),
        ({"of_items": np.zeros((K, 8), np.float64)}, {}),
        ({"of_users": np.full((K, 8), np.nan, np.float32)}, {}),
        ({"bias_1": None}, {}),
        ({"weight_2": None, "bias_2": None}, {}),
        ({"weight_1": np.zeros((7, 4), np.float32)}, {}),
        ({"weight_2": np.full((4, 1), np.inf, np.float32)}, {}),
        ({"other": np.zeros(1, np.float32)}, {}),
        ({}, {"activation": "tanh"}),
        ({}, {"n_candidates": 0}),
        ({}, {"offset": float("nan")}),
        ({}, {"offset": "much"}),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], settings_: dict[str, Any]) -> None:
    """With one sentence."""
    tensors = {name: tensor for name, tensor in (weights() | change).items() if tensor is not None}
    given_settings = {"activation": "elu", "n_candidates": 5, "offset": 0.0} | settings_
    with pytest.raises(ModelRefused, match=r"\.$"):
        PairRanker.of(tensors, given_settings)
    with pytest.raises(ModelRefused):
        PairRanker.of(tensors, {})
