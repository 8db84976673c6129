"""Workers that solve ranges of rows give the model that one process gives, to the last bit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.executors.executor import using
from service.executors.local_executor import LocalExecutor
from service.models.snapshot import ModelSnapshot
from service.training.algorithms.ials import distributed_rows
from service.training.algorithms.ials.distributed_rows import ranges_of
from service.training.algorithms.ials.ials import IalsConfig, fit
from service.training.data import datasets
from service.training.interactions import Interactions, no_progress
from tests.support.watched_workers import WatchedWorkers


def fitted(data: Interactions, config: IalsConfig) -> ModelSnapshot:
    return fit(data, config, np.random.default_rng(7), no_progress)


def tables(snapshot: ModelSnapshot) -> tuple[bytes, bytes, bytes]:
    precision = snapshot.fold_in_precision
    assert precision is not None
    return snapshot.user_factors.tobytes(), snapshot.item_factors.tobytes(), precision.tobytes()


@pytest.fixture(scope="module")
def data() -> Interactions:
    """Users and items in several ranges, and one of each without interactions."""
    whole = datasets.read("demo:2500x900x30000")
    return whole.take(np.flatnonzero((whole.user_rows != 3) & (whole.item_rows != 5)))


@pytest.mark.parametrize(
    "config",
    [
        IalsConfig(n_factors=8, n_epochs=2),
        IalsConfig(n_factors=12, n_epochs=2, block_size=5, unobserved_weight=0.01),
        IalsConfig(n_factors=6, n_epochs=1, confidence="ratings", dislike_below=0.6, dislike_weight=-1.5),
    ],
)
def test_workers_change_no_byte(workers: LocalExecutor, data: Interactions, config: IalsConfig) -> None:
    """With exact half epochs, with sweeps that begin from the previous factors, and with dislikes."""
    expected = tables(fitted(data, config))
    with using(workers):
        assert tables(fitted(data, config)) == expected


def test_a_killed_worker_changes_no_byte(workers: LocalExecutor, watched: WatchedWorkers, data: Interactions) -> None:
    """Whether it solves users or items; another does its range again."""
    config = IalsConfig(n_factors=8, n_epochs=2, block_size=3)
    expected = tables(fitted(data, config))
    watched.events.clear()
    watched.kill_when(lambda event: event.stage == "ials: users" and event.task == 1)
    watched.kill_when(lambda event: event.stage == "ials: items" and event.task == 0)
    with using(workers):
        assert tables(fitted(data, config)) == expected
    assert {event.stage for event in watched.deaths()} >= {"ials: users", "ials: items"}


@given(lengths=st.lists(st.integers(0, 70_000), max_size=60))
def test_ranges_are_all_rows_at_about_equal_costs(lengths: list[int]) -> None:
    """No range is empty, and only a row that is long by itself makes a range long."""
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ranges = ranges_of(indptr)
    assert [row for start, stop in ranges for row in range(start, stop)] == list(range(len(lengths)))
    assert all(start < stop for start, stop in ranges)
    cost = indptr + distributed_rows.ROW_COST * np.arange(len(lengths) + 1)
    longest = max(distributed_rows.MOST_COST, *lengths, 0)
    assert all(cost[stop] - cost[start] <= longest + distributed_rows.ROW_COST + max(lengths) for start, stop in ranges)


def test_large_data_have_more_ranges() -> None:
    """Small data have one, others two dozen until each is as long as it may be."""

    def number(n_rows: int, length: int) -> int:
        return len(ranges_of(np.arange(n_rows + 1, dtype=np.int64) * length))

    assert [number(10, 20), number(6_000, 160), number(140_000, 150)] == [1, 24, 85]
    sizes = [stop - start for start, stop in ranges_of(np.arange(140_001, dtype=np.int64) * 150)]
    assert max(sizes[:-1]) - min(sizes[:-1]) <= 1
