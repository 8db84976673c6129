from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from service.errors import DataError, RunError
from service.executors.executor import MOST_DEATHS, Executor, WorkerEvent, executor_in_use, using
from service.executors.local_executor import LocalExecutor
from tests.support.executor_tasks import broken, halves, joined, killed_always, killed_once, refused, squared, total


@pytest.fixture(scope="module")
def events() -> list[WorkerEvent]:
    return []


@pytest.fixture(scope="module")
def executor(tmp_path_factory: pytest.TempPathFactory, events: list[WorkerEvent]) -> Iterator[LocalExecutor]:
    with LocalExecutor(2, tmp_path_factory.mktemp("values"), events.append) as made:
        yield made


def test_tasks_read_shared_values_and_results_keep_their_order(executor: LocalExecutor) -> None:
    """Results are values of later tasks, alone and in lists, without passing through this process."""
    whole = np.arange(1000.0)
    table = executor.put(whole)
    parts = [(table, start, start + 100) for start in range(0, 1000, 100)]
    assert [executor.get(ref) for ref in executor.run(total, parts)] == [
        whole[s : s + 100].sum() for s in range(0, 1000, 100)
    ]
    squares = executor.run(squared, [(whole[:500],), (executor.put(whole[500:]),)])
    (again,) = executor.run(joined, [(squares,)])
    assert (executor.get(again) == whole**2).all()


def test_parts_of_results_are_values_of_their_own(executor: LocalExecutor) -> None:
    """A later task has one of them, another was released; a result with another number of parts is an error."""
    whole = np.arange(10.0)
    first, second = executor.run_split(halves, [(whole,), (executor.put(whole[:4]),)], 3)
    executor.release([first[0]])
    (again,) = executor.run(joined, [([first[1], second[0]],)])
    assert executor.get(again).tolist() == [5, 6, 7, 8, 9, 0, 1]
    assert [executor.get(parts[2]) for parts in (first, second)] == [5, 2]
    with pytest.raises(RunError, match="A worker failed"):
        executor.run_split(halves, [(whole,)], 2)


def test_a_task_whose_worker_is_killed_is_done_again(
    executor: LocalExecutor, events: list[WorkerEvent], tmp_path: Path
) -> None:
    """The other tasks go on, and the results are those of workers that live."""
    events.clear()
    tasks = [(str(tmp_path / str(n)), n) for n in range(4)]
    assert dict(executor.completed(killed_once, tasks, stage="fit")) == {n: (n, True) for n in range(4)}
    assert sum(event.state == "died" for event in events) == 4
    assert {event.worker for event in events} == {"worker-1", "worker-2"}
    assert max(event.n_done for event in events) == 4


def test_a_task_that_kills_its_workers_is_given_up(executor: LocalExecutor, events: list[WorkerEvent]) -> None:
    events.clear()
    with pytest.raises(RunError, match=rf"ended {MOST_DEATHS} workers\. The process was killed"):
        executor.run(killed_always, [()], stage="fit")
    assert sum(event.state == "died" for event in events) == MOST_DEATHS


def test_errors_of_tasks_are_raised(executor: LocalExecutor) -> None:
    """Ours as they are, others with where they come from; the executor goes on."""
    with pytest.raises(DataError, match=r"^Row 3 is bad\.$"):
        executor.run(refused, [(3,), (3,)])
    with pytest.raises(RunError, match=r"ZeroDivisionError: division by zero \(in broken, line "):
        executor.run(broken, [()])
    assert executor.get(executor.run(total, [(np.ones(3), 0, 3)])[0]) == 3


def test_nothing_is_left(tmp_path: Path, wait_until: Callable[..., None]) -> None:
    """Neither values nor processes, when an executor ends in the middle of its work."""
    seen: list[WorkerEvent] = []
    with LocalExecutor(1, tmp_path, seen.append) as executor:
        released = executor.put(np.ones(10))
        executor.release([released])
        results = executor.completed(total, [(np.ones(3), 0, n) for n in range(3)])
        assert next(results)[1] == 0
        results.close()  # type: ignore[attr-defined]  # a generator
    assert list(tmp_path.glob("executor-*")) == []
    for pid in {event.pid for event in seen}:
        wait_until(lambda pid=pid: not Path(f"/proc/{pid}").exists(), what="the worker to be gone")


def test_a_fit_finds_the_executor_of_its_command(executor: LocalExecutor) -> None:
    found: list[Executor | None] = [executor_in_use()]
    with using(executor):
        found.append(executor_in_use())
    assert found == [None, executor]
