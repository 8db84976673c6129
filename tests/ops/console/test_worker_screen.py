import re

import pytest

from ops.console.worker_screen import WorkerScreen
from service.executors.executor import WorkerEvent
from service.executors.machine import Machine
from tests.support.machines.pseudo_terminal import run_with_terminal_stderr

PROGRAM = """
import sys
from ops.console.worker_screen import WorkerScreen
from service.executors.executor import WorkerEvent
from service.executors.machine import Machine
with WorkerScreen() as screen:
    screen("fit ials", 3, 12)
    screen.watch(WorkerEvent("worker-1", Machine("m\\x1b[2J1", "192.0.2.1"), 41, "working", "users", 4, 3, 24))
    screen.watch(WorkerEvent("worker-2", Machine("m2", "192.0.2.2"), 42, "working", "users", 5, 3, 24))
    screen.watch(WorkerEvent("worker-2", Machine("m2", "192.0.2.2"), 42, "died", "users", 5, 3, 24))
    screen._live.refresh()
print("done")
"""


def test_a_terminal_shows_all_workers_below_the_stage() -> None:
    """Names of machines are foreign text: their controls are shown and not obeyed. Standard output is the command's."""
    finished = run_with_terminal_stderr(["-c", PROGRAM], columns=110)
    assert (finished.code, finished.out) == (0, b"done\n")
    drawn = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", finished.drawn.decode())
    assert "fit ials" in drawn
    assert "25 %" in drawn
    assert "users: 3 of 24 tasks; 2 workers on 2 machines, 1 at work" in drawn
    assert "worker-2 (process 42 on m2) died in task 6 of 24; its work is done again" in drawn
    assert re.search(r"m\\u001b\[2J1 +worker-1 +41 +working +users 5 +0", drawn)
    assert re.search(r"m2 +worker-2 +42 +died +users 6 +0 +1", drawn)


def test_elsewhere_there_are_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each stage, one of all workers every few seconds, and one for each loss at once."""
    now_s = [0.0]
    with WorkerScreen(clock=lambda: now_s[0]) as screen:
        screen("fit", 0, 2)
        for n_done in range(3):
            screen.watch(WorkerEvent("worker-1", Machine("m", "192.0.2.1"), 41, "working", "users", n_done, n_done, 3))
            now_s[0] += 3.0
        screen.watch(WorkerEvent("worker-1", Machine("m", "192.0.2.1"), 41, "died", "users", 2, 2, 3))
        screen("fit", 2, 2)
    assert capsys.readouterr().err.splitlines() == [
        "fit: 0 %",
        "users: 2 of 3 tasks; 1 worker, 1 at work",
        "worker-1 (process 41 on m) died in task 3 of 3; its work is done again",
        "fit: 100 %",
    ]
