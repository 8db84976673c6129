"""A fit that was killed with workers continues without them, and one without workers continues with them."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from service.executors.executor import using
from service.executors.local_executor import LocalExecutor
from service.training.checkpoints.folder import checkpoints_in
from service.training.data import datasets
from service.training.interactions import Interactions
from tests.support.checkpointed_fits import DATA, fitted


class Killed(Exception):
    """What ends a fit in the middle."""


@pytest.fixture(scope="module")
def data() -> Interactions:
    return datasets.read(DATA)


@pytest.mark.parametrize("begins_with_workers", [True, False])
@pytest.mark.parametrize(
    ("name", "killed_after", "begins_at"), [("pure_svd", 2, 2), ("next_item", 4, 4), ("next_item factors", 6, 2)]
)
def test_the_model_is_that_of_an_unkilled_fit(
    name: str,
    killed_after: int,
    begins_at: int,
    begins_with_workers: bool,
    workers: LocalExecutor,
    data: Interactions,
    tmp_path: Path,
) -> None:
    """The steps that were done without workers are not done again with them, nor the other way round."""
    begun: list[int] = []

    def noting(_: str, done: int, __: int) -> None:
        begun.append(done)

    def killing(_: str, done: int, __: int) -> None:
        if done == killed_after:
            raise Killed

    def surroundings(has_workers: bool) -> Any:
        return using(workers) if has_workers else nullcontext()

    whole = fitted(name, data)
    with pytest.raises(Killed), checkpoints_in(tmp_path, 0.0), surroundings(begins_with_workers):
        fitted(name, data, progress=killing)
    before = set(workers._folder.iterdir())
    with checkpoints_in(tmp_path, 0.0), surroundings(not begins_with_workers):
        assert fitted(name, data, progress=noting) == whole
    assert begun[0] == begins_at
    assert set(workers._folder.iterdir()) == before
    assert list(tmp_path.iterdir()) == []
