"""Workers that tests of distributed fits share, because a process takes seconds to load the kernels."""

from collections.abc import Iterator

import pytest

from service.executors.local_executor import LocalExecutor
from tests.support.watched_workers import WatchedWorkers


@pytest.fixture(scope="session")
def watched() -> WatchedWorkers:
    """What becomes of the workers."""
    return WatchedWorkers()


@pytest.fixture(scope="session")
def workers(tmp_path_factory: pytest.TempPathFactory, watched: WatchedWorkers) -> Iterator[LocalExecutor]:
    """Two workers of this machine."""
    with LocalExecutor(2, tmp_path_factory.mktemp("values"), watched.watch) as executor:
        yield executor
