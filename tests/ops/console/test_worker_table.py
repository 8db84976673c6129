from typing import Any

from ops.console.worker_table import WorkerTable
from service.executors.executor import WorkerEvent
from service.executors.machine import Machine


def event(
    worker: str,
    state: Any,
    task: int | None = None,
    n_done: int = 0,
    node: str = "a",
    pid: int = 7,
    address: str | None = None,
) -> WorkerEvent:
    return WorkerEvent(worker, Machine(node, address), pid, state, "fit", task, n_done, 20)


def test_a_row_has_what_a_worker_does_and_has_done() -> None:
    """Those of a machine together, by number; a worker that left has none."""
    table = WorkerTable()
    for each in (
        event("worker-10", "working", 3),
        event("worker-2", "working", 0, node="b"),
        event("worker-2", "idle", None, 1, node="b"),
        event("worker-2", "working", 4, 1, node="b"),
        event("worker-1", "working", 1),
        event("worker-1", "idle", None, 2),
        event("worker-3", "working", 5, 2),
        event("worker-3", "left", None, 2),
    ):
        assert table.update(each) is None
    heading, rows = table.rows(10)
    assert heading == ["machine", "worker", "process", "state", "task", "done", "deaths"]
    assert rows == [
        ["a", "worker-1", "7", "idle", "", "1", ""],
        ["a", "worker-10", "7", "working", "fit 4", "0", ""],
        ["b", "worker-2", "7", "working", "fit 5", "1", ""],
    ]
    assert table.summary() == "fit: 2 of 20 tasks; 3 workers on 2 machines, 2 at work"


def test_a_death_is_a_line_and_stays_in_the_row() -> None:
    """The process that takes over the name goes on with its counts."""
    table = WorkerTable()
    table.update(event("worker-1", "working", 6, pid=11))
    line = table.update(event("worker-1", "died", 6, pid=11))
    assert line == "worker-1 (process 11 on a) died in task 7 of 20; its work is done again"
    table.update(event("worker-1", "working", 6, pid=12))
    assert table.rows(9)[1] == [["a", "worker-1", "12", "working", "fit 7", "0", "1"]]
    assert table.summary() == "fit: 0 of 20 tasks; 1 worker, 1 at work"


def test_more_workers_than_lines_are_counted_by_machine() -> None:
    table = WorkerTable()
    for number in range(1200):
        table.update(event(f"worker-{number}", "working", number, node=f"n{number % 2}"))
    table.update(event("worker-1", "idle", None, 1, node="n1"))
    heading, rows = table.rows(20)
    assert heading == ["machine", "workers", "at work", "done", "deaths"]
    assert rows == [["n0", "600", "600", "0", ""], ["n1", "600", "599", "1", ""]]


def test_machines_of_the_same_name_are_told_apart_by_their_addresses() -> None:
    """Only while there are several of them."""
    table = WorkerTable()
    table.update(event("worker-1", "working", 0, node="debian", address="10.0.0.1"))
    assert table.rows(9)[1] == [["debian", "worker-1", "7", "working", "fit 1", "0", ""]]
    table.update(event("worker-2", "working", 1, node="debian", address="10.0.0.2"))
    table.update(event("worker-3", "working", 2, node="other", address="10.0.0.3"))
    names = ["debian (10.0.0.1)", "debian (10.0.0.2)", "other"]
    assert [row[0] for row in table.rows(9)[1]] == [row[0] for row in table.rows(2)[1]] == names
    assert table.summary() == "fit: 0 of 20 tasks; 3 workers on 3 machines, 3 at work"
    line = table.update(event("worker-2", "died", 1, node="debian", address="10.0.0.2"))
    assert line == "worker-2 (process 7 on debian (10.0.0.2)) died in task 2 of 20; its work is done again"
