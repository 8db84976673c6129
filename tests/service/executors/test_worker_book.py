from service.executors.executor import WorkerEvent
from service.executors.machine import Machine
from service.executors.worker_book import Place, WorkerBook

# Both machines have the same name, and processes of both the same number.
A, B, C = (Place(Machine("host", address), pid) for address, pid in (("a", 2), ("b", 2), ("b", 3)))


def said(event: WorkerEvent) -> tuple[str, str | None, str, int | None, int]:
    return event.worker, event.machine.address, event.state, event.task, event.n_done


def test_a_task_that_begins_elsewhere_had_a_worker_that_died() -> None:
    """The process that takes the place of another on its machine takes over the name."""
    seen: list[WorkerEvent] = []
    book = WorkerBook(seen.append)
    book.begin("fit", 2)
    book.started(0, A)
    book.started(1, B)
    book.started(1, C)
    book.done(1, C)
    book.done(0, A)
    book.left()
    assert [said(event) for event in seen] == [
        ("worker-1", "a", "working", 0, 0),
        ("worker-2", "b", "working", 1, 0),
        ("worker-2", "b", "died", 1, 0),
        ("worker-2", "b", "working", 1, 0),
        ("worker-2", "b", "idle", None, 1),
        ("worker-1", "a", "idle", None, 2),
        ("worker-1", "a", "left", None, 2),
        ("worker-2", "b", "left", None, 2),
    ]
    assert {(event.stage, event.n_tasks) for event in seen} == {("fit", 2)}


def test_an_idle_process_is_replaced_by_the_next_one_of_its_machine() -> None:
    """Ray ends idle processes and starts others; there are never more names than workers at work."""
    seen: list[WorkerEvent] = []
    book = WorkerBook(seen.append)
    book.begin("fit", 1)
    book.started(0, B)
    book.done(0, B)
    book.begin("validation", 1)
    book.started(0, C)
    assert [said(event)[:3] for event in seen] == [
        ("worker-1", "b", "working"),
        ("worker-1", "b", "idle"),
        ("worker-1", "b", "working"),
    ]


def test_messages_that_are_late_or_lost_hide_no_death() -> None:
    """A task that is done elsewhere than it began had a worker that died, also if the second beginning is unknown."""
    seen: list[WorkerEvent] = []
    book = WorkerBook(seen.append)
    book.begin("fit", 2)
    book.started(0, B)
    book.done(0, A)
    book.started(0, A)
    book.died(1)
    assert [said(event) for event in seen] == [
        ("worker-1", "b", "working", 0, 0),
        ("worker-1", "b", "died", 0, 0),
        ("worker-1", "a", "working", 0, 0),
        ("worker-1", "a", "idle", None, 1),
    ]
