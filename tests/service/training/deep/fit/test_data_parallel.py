"""Networks that are trained by several processes, which share batches or average parameters."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.executors.executor import using
from service.executors.local_executor import LocalExecutor
from service.models.snapshot import ModelSnapshot
from service.training.algorithms.registry import ConfiguredAlgorithm
from service.training.checkpoints.folder import checkpoints_in
from service.training.data import datasets
from service.training.deep.fit.data_parallel import DataParallelFit
from service.training.interactions import no_progress
from tests.support.networks import small_network
from tests.support.networks.small_group import SmallConfig, fit_small, fitted_by_group, in_float32
from tests.support.networks.thread_group import of_members

DATA = "demo:120x80x3000"
# With every source of random numbers: dropout, items and attributes that are left out, and drawn items.
NETWORKS = {
    "two_tower": ("dropout=0.2",),
    "rank_net": ("dropout=0.2",),
    "neural_mf": (),
    "two_tower_rating": ("dropout=0.2",),
    "sequence": ("n_factors=16", "n_negatives=20", "dropout=0.2"),
}
SMALL = SmallConfig(n_epochs=3, batch_size=290, patience=2, lr=0.01, clip_norm=1.0)
AVERAGED = replace(SMALL, average_every=2)


def chosen(name: str, *settings: str) -> ConfiguredAlgorithm:
    return ConfiguredAlgorithm.parse(name, (*NETWORKS[name], "n_epochs=2", *settings))


def fit_of(algorithm: ConfiguredAlgorithm) -> Any:
    fit = algorithm.algorithm.fit
    assert isinstance(fit, DataParallelFit)
    return fit.fit


@pytest.fixture(scope="module")
def executor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalExecutor]:
    with LocalExecutor(2, tmp_path_factory.mktemp("values")) as made:
        yield made


@pytest.fixture(scope="module")
def by_group(executor: LocalExecutor) -> dict[str, Any]:
    """What a group learns that is not killed; one group, because a process takes seconds to load PyTorch."""
    fits = [(fit_of(chosen(name)), chosen(name).config, DATA) for name in NETWORKS]
    averaged = chosen("two_tower", "average_every=4")
    fits += [(fit_of(averaged), averaged.config, DATA)]
    fits += [(fit_small, config, small_network.DATA) for config in (SMALL, AVERAGED)]
    found = executor.run_group(fitted_by_group, (fits,))
    return dict(zip((*NETWORKS, "averaged", "small", "small averaged"), found, strict=True))


def curve(model: ModelSnapshot, name: str) -> list[float]:
    return [point[name] for point in model.learning_curve if name in point]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_group_that_adds_gradients_learns_what_one_process_learns(name: str, by_group: dict[str, Any]) -> None:
    """With the same random numbers, so that only the order of sums differs."""
    found = by_group[name]
    with in_float32():
        expected = fit_of(chosen(name))(datasets.read(DATA), chosen(name).config, np.random.default_rng(3), no_progress)
    np.testing.assert_allclose(curve(found, "loss"), curve(expected, "loss"), rtol=1e-4)
    for own, other in (
        (found.user_factors, expected.user_factors),
        (found.item_factors, expected.item_factors),
    ):
        # An item that is drawn by its share may be another one where a sum ends within rounding of the number drawn.
        assert np.abs(own - other).max() < (0.02 if name == "rank_net" else 1e-4) * np.abs(other).max()


def test_averaged_parameters_learn(by_group: dict[str, Any]) -> None:
    """Something else, with half of the steps of each, and after two epochs more than one process after one."""
    shared, averaged = by_group["two_tower"], by_group["averaged"]
    losses, others = curve(averaged, "loss"), curve(shared, "loss")
    assert losses[1] < losses[0]
    assert losses != others
    assert losses[1] < others[0]


def test_a_group_whose_member_is_killed_ends_with_the_same_bytes(
    executor: LocalExecutor, tmp_path: Path, by_group: dict[str, Any]
) -> None:
    """It goes on from the checkpoint, which the command keeps and removes."""
    fit: Any = DataParallelFit("small", fit_small)
    n_kept: list[int] = []
    config = replace(SMALL, killed_rank=1, killed_step=6)
    with checkpoints_in(tmp_path, 0.0), using(executor):
        found = fit(
            *(datasets.read(small_network.DATA), config, np.random.default_rng(3)),
            lambda *_: n_kept.append(len(list(tmp_path.iterdir()))),
        )
    assert found == (*by_group["small"][:2], 1)
    assert max(n_kept) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_same_command_goes_on_after_it_was_killed(
    executor: LocalExecutor, tmp_path: Path, by_group: dict[str, Any]
) -> None:
    """A group whose command dies in its second epoch ends with it; the next command's group has the checkpoint."""
    fit: Any = DataParallelFit("small", fit_small)
    seen: list[int] = []

    def progress(stage: str, done: int, total: int) -> None:
        seen.append(done)
        if seen == [0, 1]:
            raise KeyboardInterrupt

    def fitted() -> Any:
        with checkpoints_in(tmp_path, 0.0), using(executor):
            return fit(datasets.read(small_network.DATA), AVERAGED, np.random.default_rng(3), progress)

    with pytest.raises(KeyboardInterrupt):
        fitted()
    assert len(list(tmp_path.iterdir())) == 1
    assert fitted() == by_group["small averaged"]
    assert seen == [0, 1, 1, 2, 3]


def test_a_group_of_one_learns_what_one_process_learns() -> None:
    """To the bit."""
    data = datasets.read(small_network.DATA)

    def fit() -> Any:
        return fit_small(data, SMALL, np.random.default_rng(3), no_progress)

    assert of_members(1, lambda group: fit()) == [fit()]
