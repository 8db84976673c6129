"""The benchmark of training groups compares like with like."""

import pytest

from ops.benchmarks.fits import group_fits
from service.training.algorithms.registry import ConfiguredAlgorithm


def test_a_group_and_one_process_are_measured_on_the_same_interactions() -> None:
    """A group that adds gradients predicts as one process does; ways take turns, one fit for each seed."""
    candidate = ConfiguredAlgorithm.parse("two_tower_rating", ("n_epochs=2", "patience=0"))
    notes: list[str] = []
    alone, group = group_fits.run("demo:80x40x900", [candidate], [1], [], 1, notes.append)
    assert [alone.n_members, group.n_members] == [0, 1]
    assert [fit.measure for fit in (alone, group)] == ["rmse", "rmse"]
    assert group.quality == pytest.approx(alone.quality, rel=1e-6)
    assert len(notes) == len(alone.epoch_s) + len(group.epoch_s) == 2
    assert [row[2] for row in group_fits.rows([alone, group])] == ["", "gradients"]
