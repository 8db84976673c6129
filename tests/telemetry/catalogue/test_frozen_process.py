import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from telemetry.catalogue.frozen_process import Activity, FrozenWatch, activity_of, end_process

IDLE = Activity(1, 2, 3)


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process with two threads that run every few milliseconds."""
    script = (
        "import threading, time\ndef work():\n while True: time.sleep(0.005)\nthreading.Thread(target=work).start()"
    )
    process = subprocess.Popen([sys.executable, "-c", script])
    yield process
    process.kill()
    process.wait()


def _changes(pid: int, before: Activity | None) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if activity_of(pid) != before:
            return True
    return False


def test_the_mark_of_a_process_changes_while_it_runs(process: subprocess.Popen[bytes]) -> None:
    """It stays the same while the process is stopped, and changes when it is woken up."""
    mark = activity_of(process.pid)
    assert mark is not None
    assert _changes(process.pid, mark)
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    stopped = activity_of(process.pid)
    assert stopped is not None
    assert all(activity_of(process.pid) == stopped for _ in range(100))
    process.send_signal(signal.SIGCONT)
    assert _changes(process.pid, stopped)
    process.kill()
    process.wait()
    assert activity_of(process.pid) is None


def test_a_process_is_frozen_once_it_has_stood_still_for_long_enough() -> None:
    """A new mark, a successor with the same pid, or a look without it begins anew."""
    watch = FrozenWatch(4.0)
    assert watch.look({7: IDLE}, 10.0) == ({}, False)
    assert watch.look({7: IDLE, 8: IDLE}, 13.9) == ({}, True)
    assert watch.look({7: IDLE, 8: IDLE}, 14.0) == ({7: IDLE}, True)
    ran = IDLE._replace(switches=4)
    assert watch.look({7: ran, 8: IDLE}, 17.8) == ({}, True)
    assert watch.look({7: ran._replace(started=9), 8: ran}, 21.9) == ({}, False)
    assert watch.look({}, 22.0) == ({}, False)
    assert watch.look({8: ran}, 30.0) == ({}, False)
    assert watch.look({8: ran}, 34.0) == ({8: ran}, True)


def test_only_the_process_that_was_meant_is_ended(process: subprocess.Popen[bytes]) -> None:
    """Not one that holds nothing by now, and none that is gone."""
    assert not end_process(process.pid, lambda: False)
    assert process.poll() is None
    assert end_process(process.pid, lambda: True)
    assert process.wait(10) == -signal.SIGKILL
    assert not end_process(process.pid, lambda: True)
