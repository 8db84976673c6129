"""The transformer of served sequence models is that of its definition, and refuses weights that do not fit."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import ModelRefused
from service.models.history.user_history import DISMISS, RATING, UserHistory
from service.models.networks.inputs import InputTables, UserInput
from service.models.networks.sequence import SequenceTower
from tests.reference import transformer
from tests.support.networks.small_transformers import Tensors, tensors

SETTINGS = {"n_blocks": 2, "n_heads": 2}
NO_ATTRIBUTES = np.zeros(0, np.int32)


def tables(rng: np.random.Generator, width: int, n_items: int = 30) -> InputTables:
    factors = rng.normal(size=(n_items, width)).astype(np.float32)
    return InputTables(factors, np.zeros(n_items, np.float32), 0.0)


def user_of(tower: SequenceTower, rows: list[int], items: InputTables, dismissed: tuple[int, ...] = ()) -> np.ndarray:
    types = np.array([DISMISS if row in dismissed else RATING for row in rows], np.uint8)
    history = UserHistory(np.array(rows, np.int32), np.ones(len(rows), np.float32), types)
    found = tower.user(UserInput(history, NO_ATTRIBUTES), items)
    assert found.factors.dtype == np.float32
    assert found.bias == 0
    return found.factors


def small(rng: np.random.Generator) -> Tensors:
    return tensors(rng, width=4, n_blocks=2, n_heads=2, window=6, gated=True)


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 1000),
    n_blocks=st.integers(1, 3),
    n_heads=st.sampled_from([1, 2, 4]),
    length=st.integers(1, 9),
    gated=st.booleans(),
)
def test_a_user_is_that_of_the_definition(seed: int, n_blocks: int, n_heads: int, length: int, gated: bool) -> None:
    """Of histories within the window, position by position in float64."""
    rng = np.random.default_rng(seed)
    weights = tensors(rng, width=8, n_blocks=n_blocks, n_heads=n_heads, window=9, gated=gated)
    tower = SequenceTower.of(weights, {"n_blocks": n_blocks, "n_heads": n_heads})
    items = tables(rng, 8)
    rows = rng.permutation(30)[:length].tolist()
    expected = transformer.user(weights, items.input_factors[rows], n_blocks, n_heads)
    np.testing.assert_allclose(user_of(tower, rows, items), expected, atol=2e-5)


def test_the_latest_items_within_the_window_count() -> None:
    """In their order: a user of other older items is the same, one of another order is not."""
    rng = np.random.default_rng(1)
    tower, items = SequenceTower.of(small(rng), SETTINGS), tables(rng, 4)
    recent = [3, 1, 4, 15, 9, 2]
    found = user_of(tower, recent, items)
    assert user_of(tower, [7, 8, *recent], items).tobytes() == found.tobytes()
    assert np.abs(user_of(tower, [1, 3, *recent[2:]], items) - found).max() > 1e-3
    assert np.abs(user_of(tower, [7, *recent[1:]], items) - found).max() > 1e-3


def test_dismissals_are_left_out() -> None:
    """The user of what is left; without any item left, scores are all equal."""
    rng = np.random.default_rng(1)
    tower, items = SequenceTower.of(small(rng), SETTINGS), tables(rng, 4)
    found = user_of(tower, [7, 3, 8, 1], items, dismissed=(7, 8))
    assert found.tobytes() == user_of(tower, [3, 1], items).tobytes()
    assert not user_of(tower, [7], items, dismissed=(7,)).any()
    assert not user_of(tower, [], items).any()


def test_what_each_interaction_changed() -> None:
    """The user after each one, as of the history that ended there; a dismissal changes nothing."""
    rng = np.random.default_rng(6)
    tower, items = SequenceTower.of(small(rng), SETTINGS), tables(rng, 4)
    rows = [7, 3, 8, 1, 5]
    types = np.array([DISMISS if row == 8 else RATING for row in rows], np.uint8)
    history = UserHistory(np.array(rows, np.int32), np.ones(5, np.float32), types)
    found = tower.after_each(UserInput(history, NO_ATTRIBUTES), items)
    for place in range(5):
        expected = user_of(tower, rows[: place + 1], items, dismissed=(8,))
        np.testing.assert_allclose(found[place], expected, atol=1e-6)
    assert found[2].tobytes() == found[1].tobytes()


def test_it_reads_back_as_it_was() -> None:
    """From its tensors and settings, to the last bit."""
    rng = np.random.default_rng(2)
    weights = small(rng)
    tower, items = SequenceTower.of(weights, SETTINGS), tables(rng, 4)
    assert tower.tensors().keys() == weights.keys()
    assert tower.settings() == SETTINGS
    again = SequenceTower.of(tower.tensors(), tower.settings())
    assert user_of(again, [1, 2, 3], items).tobytes() == user_of(tower, [1, 2, 3], items).tobytes()


def test_extreme_inputs_stay_finite() -> None:
    """Embeddings of any size: a gate of an exponential that is too large is 0 or 1."""
    rng = np.random.default_rng(3)
    tower, items = SequenceTower.of(small(rng), SETTINGS), tables(rng, 4)
    huge = items._replace(input_factors=items.input_factors * np.float32(1e6))
    with np.errstate(all="raise", under="ignore"):
        assert np.isfinite(user_of(tower, [1, 2, 3], huge)).all()


def without(name: str) -> Callable[[Tensors], Tensors]:
    return lambda weights: {key: value for key, value in weights.items() if key != name}


def with_(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Tensors], Tensors]:
    return lambda weights: {key: change(value) if key == name else value for key, value in weights.items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("norm.bias"), "lacks its final normalisation"),
        (without("blocks.1.distance"), "A block of the transformer has the tensors"),
        (without("blocks.0.gate_forward.bias"), "A block of the transformer has the tensors"),
        (lambda weights: weights | {"more": np.zeros(1, np.float32)}, "belong to none of its blocks"),
        (with_("norm.weight", lambda old: old[:3]), "two widths"),
        (with_("blocks.0.up.bias", lambda old: old.astype(np.float64)), "not finite float32"),
        (with_("blocks.0.out.bias", lambda old: old * np.float32(np.nan)), "not finite float32"),
        (with_("blocks.1.down.weight", lambda old: old[:, 1:]), "up.weight has the shape"),
        (with_("blocks.1.out.weight", lambda old: old[1:]), "out.weight has the shape"),
        (with_("blocks.1.distance", lambda old: old[:1]), "do not fit its width"),
        (with_("blocks.1.distance", lambda old: old[:, 1:]), "different windows"),
    ],
)
def test_weights_that_do_not_fit_are_refused(change: Callable[[Tensors], Tensors], message: str) -> None:
    with pytest.raises(ModelRefused, match=message):
        SequenceTower.of(change(small(np.random.default_rng(4))), SETTINGS)


@pytest.mark.parametrize(
    "given_settings", [{}, {"n_blocks": 2}, {"n_blocks": "2", "n_heads": 2}, {"n_blocks": 0, "n_heads": 2}]
)
def test_settings_that_do_not_fit_are_refused(given_settings: dict[str, object]) -> None:
    with pytest.raises(ModelRefused, match="how many blocks and heads"):
        SequenceTower.of(small(np.random.default_rng(4)), given_settings)


def test_items_of_another_width_are_refused() -> None:
    rng = np.random.default_rng(5)
    tower = SequenceTower.of(small(rng), SETTINGS)
    with pytest.raises(ModelRefused, match="5 inputs"):
        user_of(tower, [1, 2], tables(rng, 5))
