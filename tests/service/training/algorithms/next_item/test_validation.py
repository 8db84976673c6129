"""The validation within a fit hides the latest interactions, and judges lists as an evaluation does."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.models.history.weights import HistoryWeights
from service.training.algorithms.kernels.next_item.item_sequences import Sequences, sequences
from service.training.algorithms.next_item import validation as module
from service.training.algorithms.next_item.validation import hide_latest
from service.training.assembly import history_entries
from tests.support.interactions import rated


def sequences_of(*lengths: int, n_items: int = 40) -> Sequences:
    """User u interacts with items u, u + 1, … in this order."""
    rows = [(user, (user + step) % n_items, 5.0) for user, length in enumerate(lengths) for step in range(length)]
    data = rated(rows, n_users=len(lengths), n_items=n_items)
    return sequences(history_entries(data), HistoryWeights(half_life=2.0, dislike_below=None))


@given(st.lists(st.integers(0, 30), min_size=1, max_size=9).filter(lambda lengths: max(lengths) > 1))
def test_known_and_hidden_are_the_whole(lengths: list[int]) -> None:
    """In order; every other user hides one interaction, the others a fifth but at least one; none hides their only."""
    validation = hide_latest(sequences_of(*lengths), np.random.default_rng(0))
    assert validation is not None
    with_any = [user for user, length in enumerate(lengths) if length]
    for index, user in enumerate(with_any):
        known = validation.known.items[validation.known.starts[index] : validation.known.starts[index + 1]].tolist()
        hidden = validation.hidden_items[validation.hidden_starts[index] : validation.hidden_starts[index + 1]].tolist()
        assert known + hidden == [(user + step) % 40 for step in range(lengths[user])]
        wanted = 1 if index % 2 == 0 else max(1, lengths[user] // 5)
        assert len(hidden) == (wanted if lengths[user] > 1 else 0)
        assert (index in validation.judged.tolist()) == (lengths[user] > 1)


def test_nothing_can_be_hidden_of_single_interactions() -> None:
    """Then the first choice counts."""
    assert hide_latest(sequences_of(1, 1, 0), np.random.default_rng(0)) is None


def test_a_perfect_list_scores_one_and_its_reverse_zero() -> None:
    """The known items are left out, whatever their scores."""
    validation = hide_latest(sequences_of(6, 6, 11, 11), np.random.default_rng(0))
    assert validation is not None
    perfect = np.zeros((4, 40))
    for user in range(4):
        hidden = validation.hidden_items[validation.hidden_starts[user] : validation.hidden_starts[user + 1]]
        perfect[user, hidden] = 1
        known = validation.known.items[validation.known.starts[user] : validation.known.starts[user + 1]]
        perfect[user, known] = 2
    assert validation.score(lambda users: perfect[users].copy()) == pytest.approx(1)
    assert validation.score(lambda users: -perfect[users]) == 0


def test_many_users_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample of users is learnt from, and a sample of these is judged; the same for the same generator."""
    monkeypatch.setattr(module, "_MOST_ENTRIES", 200)
    monkeypatch.setattr(module, "_MOST_USERS", 10)
    whole = sequences_of(*[10] * 100)
    first, same, other = (hide_latest(whole, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert first is not None
    assert same is not None
    assert other is not None
    assert 19 <= np.diff(first.known.starts).size <= 21
    assert first.judged.size == 10
    assert first.known.items.tolist() == same.known.items.tolist()
    assert first.known.items.tolist() != other.known.items.tolist()
