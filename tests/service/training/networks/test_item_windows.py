"""Batches for transformers: every latest window, the items that come next, and as many positions as interactions."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from service.models.history.user_history import DISMISS, RATING
from service.training.deep.group.share import ALONE
from service.training.networks.item_windows import NONE, Batch, Histories
from tests.support.interactions import rated


def histories(lengths: Sequence[int]) -> Histories:
    """Return users with so many interactions; item 100 * user + place."""
    stops = np.cumsum(lengths)
    starts = stops - np.asarray(lengths)
    items = np.concatenate([[], *(100 * user + np.arange(length) for user, length in enumerate(lengths))])
    return Histories(starts, stops, items.astype(np.int64), 100 * len(lengths))


def rows_of(batch: Batch, padding: int) -> list[tuple[list[int], list[int]]]:
    """Return items and targets of each window, without padding."""
    found = []
    for items, targets in zip(batch.items.tolist(), batch.targets.tolist(), strict=True):
        size = len(items) - items.count(padding)
        assert items[size:] == [padding] * (len(items) - size)
        assert targets[size:] == [NONE] * (len(items) - size)
        found.append((items[:size], targets[:size]))
    return found


@settings(max_examples=50, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=12),
    window=st.integers(1, 12),
    n_positions=st.integers(1, 60),
    seed=st.integers(0, 99),
)
def test_an_epoch_has_the_latest_window_of_every_user(
    lengths: list[int], window: int, n_positions: int, seed: int
) -> None:
    """Targets follow their items in one user's history; a batch is within its positions, or a single window."""
    known = histories(lengths)
    batches = [known.batch(draft, ALONE) for draft in known.drafts(window, n_positions, np.random.default_rng(seed))]
    windows = [row for batch in batches for row in rows_of(batch, known.n_items)]
    for items, targets in windows:
        assert 1 <= len(items) <= window
        assert items == list(range(items[0], items[0] + len(items)))
        assert targets == [item + 1 for item in items]
        assert targets[-1] % 100 < lengths[targets[-1] // 100]
    latest = [items for items, targets in windows if targets[-1] % 100 == lengths[targets[-1] // 100] - 1]
    expected = [
        [100 * user + place for place in range(max(0, length - 1 - window), length - 1)]
        for user, length in enumerate(lengths)
        if length > 1
    ]
    assert all(items in latest for items in expected)
    assert all(batch.items.numel() <= n_positions or len(batch.items) == 1 for batch in batches)


def test_long_histories_have_windows_in_proportion() -> None:
    """Over many epochs about as many positions as interactions, at all places."""
    known = histories([60])
    counts = np.zeros(60)
    n_epochs = 400
    for seed in range(n_epochs):
        for draft in known.drafts(10, 1000, np.random.default_rng(seed)):
            np.add.at(counts, known.batch(draft, ALONE).targets.numpy().ravel(), 1)
    assert counts[0] == 0
    assert abs(counts.sum() / n_epochs - 59) < 3
    assert (counts[1:] > 0).all()


def test_the_same_generator_gives_the_same_batches() -> None:
    """And another one gives others."""
    known = histories([30, 7, 12, 90, 2])
    first, same, other = (
        [known.batch(draft, ALONE).items.tolist() for draft in known.drafts(5, 20, np.random.default_rng(seed))]
        for seed in (1, 1, 2)
    )
    assert first == same != other


def test_histories_are_in_the_order_of_time_without_dismissals() -> None:
    """Of equal times the later line is the later interaction; a user may have none left."""
    data = rated(
        [(0, 5, 1), (1, 2, 1), (0, 3, 1), (0, 4, 1), (2, 1, 1), (0, 0, 1)], times=[9, 5, 2, 2, 1, 3], n_users=4
    )
    types = np.array([RATING, RATING, RATING, RATING, DISMISS, RATING], np.uint8)
    found = Histories.of(replace(data, types=types))
    parts = [found.items[start:stop].tolist() for start, stop in zip(found.starts, found.stops, strict=True)]
    assert parts == [[3, 4, 0, 5], [2], [], []]
    assert found.lengths.tolist() == [4, 1, 0, 0]


def test_latest_windows_are_padded_at_the_end() -> None:
    known = histories([2, 5, 1])
    items, last = known.latest(np.array([0, 1, 2]), 3)
    assert items.tolist() == [[0, 1, 300], [102, 103, 104], [200, 300, 300]]
    assert last.tolist() == [1, 2, 0]
