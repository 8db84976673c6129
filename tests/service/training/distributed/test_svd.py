"""Workers that visit blocks of ratings give the model that one process gives, to the last bit."""

import numpy as np
import pytest

from service.errors import TrainingDiverged
from service.executors.executor import using
from service.executors.local_executor import LocalExecutor
from service.models.snapshot import ModelSnapshot
from service.training.algorithms.svd import SvdConfig, fit
from service.training.data import datasets
from service.training.interactions import Interactions, no_progress
from tests.support.watched_workers import WatchedWorkers


def fitted(data: Interactions, config: SvdConfig, min_grid_ratings: int = 9000) -> ModelSnapshot:
    return fit(data, config, np.random.default_rng(7), no_progress, min_grid_ratings=min_grid_ratings)


def tables(snapshot: ModelSnapshot) -> list[bytes]:
    found = (snapshot.user_factors, snapshot.item_factors, snapshot.user_bias, snapshot.item_bias)
    return [table.tobytes() for table in found]


@pytest.fixture(scope="module")
def data() -> Interactions:
    """Ratings enough for a grid, with a user and an item without any."""
    whole = datasets.read("demo:300x200x10000")
    return whole.take(np.flatnonzero((whole.user_rows != 3) & (whole.item_rows != 5)))


@pytest.mark.parametrize(
    "config",
    [
        SvdConfig(n_factors=5, n_epochs=3, lr_all=0.02),
        SvdConfig(n_factors=9, n_epochs=2, biased=False),
        SvdConfig(n_factors=5, n_epochs=2, n_groups=3),
        SvdConfig(n_factors=5, n_epochs=1, n_groups=2),
        SvdConfig(n_factors=5, n_epochs=1, n_groups=1),
    ],
)
def test_workers_change_no_byte(
    workers: LocalExecutor, watched: WatchedWorkers, data: Interactions, config: SvdConfig
) -> None:
    """Over several epochs, for which the tables come back; one group is left to this process."""
    expected = tables(fitted(data, config))
    watched.events.clear()
    with using(workers):
        assert tables(fitted(data, config)) == expected
    n_groups = config.n_groups or 4
    n_blocks = sum(event.state == "working" for event in watched.events)
    assert n_blocks == (n_groups**2 * config.n_epochs if n_groups > 1 else 0)


def test_groups_without_a_row_change_no_byte(workers: LocalExecutor) -> None:
    """More groups than users or items leave blocks empty."""
    small, config = datasets.read("demo:6x5x20"), SvdConfig(n_factors=2, n_epochs=2, n_groups=8)
    expected = tables(fitted(small, config))
    with using(workers):
        assert tables(fitted(small, config)) == expected


def test_a_killed_worker_changes_no_byte(workers: LocalExecutor, watched: WatchedWorkers, data: Interactions) -> None:
    """Another visits its block again, from the factors before it."""
    config = SvdConfig(n_factors=5, n_epochs=2, lr_all=0.02)
    expected = tables(fitted(data, config))
    watched.events.clear()
    watched.kill_when(lambda event: event.task == 2)
    watched.kill_when(lambda event: event.task == 3)
    with using(workers):
        assert tables(fitted(data, config)) == expected
    assert {event.task for event in watched.deaths()} >= {2, 3}


def test_a_divergence_is_noticed_on_workers_too(workers: LocalExecutor, data: Interactions) -> None:
    """In the same epoch, with the same sentence."""
    config = SvdConfig(n_factors=5, n_epochs=30, lr_all=2.0)
    with pytest.raises(TrainingDiverged) as expected:
        fitted(data, config)
    with using(workers), pytest.raises(TrainingDiverged) as found:
        fitted(data, config)
    assert str(found.value) == str(expected.value)
