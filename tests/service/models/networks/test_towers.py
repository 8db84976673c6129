"""Towers of perceptrons: what they compute, what they refuse, and what they give a user of whom nothing is known."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.errors import ModelRefused
from service.models.features.item_features import ItemFeatures
from service.models.history.user_history import DISMISS, NO_HISTORY, PURCHASE, RATING, UserHistory
from service.models.history.weights import HistoryWeights
from service.models.networks import kinds
from service.models.networks.category_tower import CategoryTower
from service.models.networks.history_inputs import HistoryInputs
from service.models.networks.history_tower import HistoryTower
from service.models.networks.inputs import InputTables, UserInput
from service.models.networks.perceptron import Perceptron
from service.models.networks.rating_unit import RatingUnit
from service.models.networks.tower_outputs import TowerOutputs
from tests.reference import towers as reference

N_ITEMS = 30
WIDTH = 4
SIZES = (3, 2)
K = 5


def normal(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    return rng.normal(size=shape).astype(np.float32)


def perceptron(rng: np.random.Generator, n_inputs: int, n_outputs: int) -> Perceptron:
    shapes = ((n_inputs, 6), (6, 3), (3, n_outputs))
    return Perceptron([(normal(rng, *shape), normal(rng, shape[1])) for shape in shapes])


def user_tower(*, rated: bool, seed: int = 0) -> HistoryTower:
    rng = np.random.default_rng(seed)
    weights = HistoryWeights(window=8, dislike_below=None if rated else 2.0, dislike_weight=1.0 if rated else -0.5)
    inputs = HistoryInputs(
        WIDTH,
        (0.0,) if rated else (1.0, 4.0, 0.0),
        0.5 if rated else 1.0,
        RatingUnit(3.5, 1.5) if rated else None,
        weights,
    )
    outputs = TowerOutputs(K, 2.0, 1.5, has_bias=rated, normalise=not rated)
    layers = perceptron(rng, inputs.n_numbers + WIDTH, K + rated)
    return HistoryTower(inputs, SIZES, normal(rng, sum(SIZES), WIDTH), layers, outputs)


def item_tower(*, normalise: bool = False) -> CategoryTower:
    rng = np.random.default_rng(1)
    outputs = TowerOutputs(K, 0.5, 2.0, has_bias=True, normalise=normalise)
    return CategoryTower(normal(rng, 7, WIDTH), perceptron(rng, WIDTH, K + 1), outputs)


def tables() -> InputTables:
    rng = np.random.default_rng(2)
    return InputTables(normal(rng, N_ITEMS, 2 * WIDTH + 1), np.zeros(N_ITEMS, np.float32), 3.5)


def history(rng: np.random.Generator, n: int) -> UserHistory:
    return UserHistory(
        rng.permutation(N_ITEMS)[:n].astype(np.int32),
        rng.integers(1, 6, n).astype(np.float32),
        rng.choice([RATING, PURCHASE, DISMISS], n).astype(np.uint8),
        None,
    )


@pytest.mark.parametrize("rated", [False, True])
@given(n=st.integers(0, 8), seed=st.integers(0, 1 << 20))
def test_a_user_is_that_of_the_reference(rated: bool, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tower, known = user_tower(rated=rated), UserInput(history(rng, n), np.array([1, 1], np.int32))
    found = tower.user(known, tables())
    factors, bias = reference.user(tower, known, tables())
    np.testing.assert_allclose(found.factors, factors, rtol=1e-3, atol=1e-3)
    assert found.bias == pytest.approx(bias, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("normalise", [False, True])
def test_items_are_those_of_the_reference(normalise: bool) -> None:
    tower = item_tower(normalise=normalise)
    features = ItemFeatures(np.array([0, 1, 4, 6]), np.array([0, 1, 2, 6, 3, 4], np.int32))
    found, biases = tower.items(features)
    for number in range(3):
        factors, bias = reference.item(tower, features, number)
        np.testing.assert_allclose(found[number], factors, rtol=1e-4, atol=1e-5)
        assert biases[number] == pytest.approx(bias, rel=1e-4, abs=1e-5)


def test_an_item_does_not_depend_on_the_others() -> None:
    tower = item_tower()
    both, _ = tower.items(ItemFeatures(np.array([0, 2, 3]), np.array([1, 5, 2], np.int32)))
    alone, _ = tower.items(ItemFeatures(np.array([0, 1]), np.array([2], np.int32)))
    np.testing.assert_allclose(both[1], alone[0], rtol=1e-6)
    none, _ = tower.items(ItemFeatures(np.zeros(1, np.int64), np.zeros(0, np.int32)))
    assert none.shape == (0, K)


@pytest.mark.parametrize("rated", [False, True])
def test_a_user_of_whom_nothing_is_known_has_no_factors(rated: bool) -> None:
    """Neither have dislikes alone a taste; an attribute or one interaction makes a user."""
    tower = user_tower(rated=rated)
    unknown = np.zeros(2, np.int32)
    assert not tower.user(UserInput(NO_HISTORY, unknown), tables()).factors.any()
    assert tower.user(UserInput(NO_HISTORY, unknown), tables()).bias == 0
    assert tower.user(UserInput(NO_HISTORY, np.array([2, 0], np.int32)), tables()).factors.any()
    one = history(np.random.default_rng(0), 1)
    assert tower.user(UserInput(one._replace(types=np.array([PURCHASE], np.uint8)), unknown), tables()).factors.any()
    disliked = tower.user(UserInput(one._replace(types=np.array([DISMISS], np.uint8)), unknown), tables())
    assert disliked.factors.any() == rated


def test_a_category_out_of_range_is_unknown() -> None:
    """So is a column that is missing, as of a user that was encoded by another release."""
    tower, own = user_tower(rated=False), history(np.random.default_rng(0), 5)
    known = tower.user(UserInput(own, np.zeros(2, np.int32)), tables())
    for attributes in ([-1, 9], [], [3]):
        found = tower.user(UserInput(own, np.array(attributes, np.int32)), tables())
        assert found.factors.tobytes() == known.factors.tobytes()
    strange, _ = item_tower().items(ItemFeatures(np.array([0, 2]), np.array([-3, 99], np.int32)))
    plain, _ = item_tower().items(ItemFeatures(np.array([0, 1]), np.array([0], np.int32)))
    np.testing.assert_allclose(strange, plain, rtol=1e-6)


def test_ratings_of_any_scale_are_learnt_alike() -> None:
    ratings = np.random.default_rng(0).integers(1, 6, 500).astype(np.float32)
    plain = RatingUnit.of(ratings).learnt(ratings)
    assert abs(float(plain.mean())) < 1e-4
    assert float(plain.std()) == pytest.approx(1, abs=1e-3)
    for factor in (1e30, 20, 1e-20):
        scaled = (ratings.astype(np.float64) * factor).astype(np.float32)
        assert RatingUnit.of(scaled).learnt(scaled).tobytes() == plain.tobytes()
    for equal in (0.0, 1e30, -3.0):
        same = np.full(7, equal, np.float32)
        assert not RatingUnit.of(same).learnt(same).any()


@pytest.mark.parametrize("tower", [user_tower(rated=True), user_tower(rated=False), item_tower()])
def test_a_tower_is_read_back_as_it_was(tower: Any) -> None:
    again = kinds.network(tower.kind, tower.tensors(), tower.settings())
    assert again.settings() == tower.settings()
    assert {name: tensor.tobytes() for name, tensor in again.tensors().items()} == {
        name: tensor.tobytes() for name, tensor in tower.tensors().items()
    }


Change = Callable[[dict[str, Any], dict[str, Any]], object]
CHANGES: dict[str, Change] = {
    "no attributes": lambda tensors, _: tensors.pop("attributes"),
    "no layers": lambda tensors, _: tensors.pop("weight_0"),
    "no biases": lambda tensors, _: tensors.pop("bias_1"),
    "other numbers": lambda tensors, _: tensors.update(weight_0=tensors["weight_0"].astype(np.float64)),
    "not a number": lambda tensors, _: tensors.update(bias_0=np.full_like(tensors["bias_0"], np.nan)),
    "a shape": lambda tensors, _: tensors.update(weight_1=tensors["weight_1"][:-1]),
    "no inputs": lambda _, settings: settings.pop("inputs"),
    "sizes": lambda _, settings: settings.update(sizes=[3]),
    "outputs": lambda _, settings: settings["outputs"].update(n_factors=2),
    "scale": lambda _, settings: settings["outputs"].update(scale=float("inf")),
    "half-life": lambda _, settings: settings["inputs"].update(half_lives=[-1.0]),
    "window": lambda _, settings: settings["inputs"]["weights"].update(window=None),
    "unit": lambda _, settings: settings["inputs"].update(unit=[1.0, 0.0]),
    "width": lambda _, settings: settings["inputs"].update(width="wide"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_broken_user_tower_is_refused(change: Change) -> None:
    tower = user_tower(rated=True)
    tensors, settings = dict(tower.tensors()), tower.settings()
    change(tensors, settings)
    with pytest.raises(ModelRefused):
        HistoryTower.of(tensors, settings)


def test_a_broken_item_tower_is_refused() -> None:
    tower = item_tower()
    for missing in tower.tensors():
        with pytest.raises(ModelRefused):
            CategoryTower.of({k: v for k, v in tower.tensors().items() if k != missing}, tower.settings())
    with pytest.raises(ModelRefused):
        CategoryTower.of(tower.tensors(), {})
    with pytest.raises(ModelRefused):
        CategoryTower.of({**tower.tensors(), "categories": np.zeros((0, WIDTH), np.float32)}, tower.settings())
