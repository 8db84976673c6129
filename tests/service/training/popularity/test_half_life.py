"""The half-life of popularity follows how fast the catalogue goes stale."""

import dataclasses

import numpy as np
import pytest

from service.training.interactions import Interactions
from service.training.popularity import half_life
from service.training.popularity.half_life import CANDIDATES_DAYS, best_half_life_days
from tests.support.interactions import rated

DAY_S = 86_400


def history_of(n_days: int, items_of_day: int, lasting_days: int, seed: int = 0) -> Interactions:
    """Each day some new items appear, and 20 new users choose among those that appeared in the last days."""
    rng = np.random.default_rng(seed)
    rows, times = [], []
    for day in range(n_days):
        newest = (day + 1) * items_of_day
        oldest = max(0, newest - lasting_days * items_of_day)
        for user in range(20 * day, 20 * day + 20):
            # Low numbers are popular within each day's items.
            ranks = rng.zipf(1.5, 40) % items_of_day
            items = oldest + ranks + items_of_day * rng.integers(0, (newest - oldest) // items_of_day, 40)
            for item in np.unique(items)[:8].tolist():
                rows.append((user, int(item), 4.0))
                times.append(day * DAY_S)
    return rated(rows, times=times, n_users=20 * n_days, n_items=n_days * items_of_day)


def test_items_that_last_a_week_have_a_short_half_life() -> None:
    """News: what was popular two weeks ago is no longer chosen."""
    assert best_half_life_days(history_of(n_days=120, items_of_day=10, lasting_days=5)) == 7


def test_items_that_last_have_no_decay() -> None:
    """A catalogue that is all there from the beginning: more interactions are better counts."""
    data = history_of(n_days=120, items_of_day=200, lasting_days=1)
    lasting = dataclasses.replace(data, item_rows=data.item_rows % 200)
    assert best_half_life_days(lasting) == CANDIDATES_DAYS[0]


def test_few_interactions_or_no_times_have_no_decay() -> None:
    """There is nothing to judge by."""
    data = history_of(n_days=120, items_of_day=10, lasting_days=5)
    assert best_half_life_days(dataclasses.replace(data, timestamps=None)) == CANDIDATES_DAYS[0]
    assert best_half_life_days(data.take(np.arange(900))) == CANDIDATES_DAYS[0]


def test_large_data_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of the interactions gives the same choice."""
    data = history_of(n_days=120, items_of_day=10, lasting_days=5)
    monkeypatch.setattr(half_life, "_MOST_INTERACTIONS", 5000)
    assert best_half_life_days(data) == 7
