import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
HEARS = """
    try:
        print(os.getpid(), flush=True)
        signal.pause()
    except KeyboardInterrupt:
        print("I am done", file=sys.stderr)
        return 7
"""
# What a kernel is that does not give the interpreter back: no handler of Python's runs.
IS_DEAF = """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    print(os.getpid(), flush=True)
    while True:
        signal.pause()
"""


class Running:
    """A program that works in the foreground, and the process number of its child."""

    def __init__(self, work: str) -> None:
        program = (
            "import os, signal, sys\nfrom ops.console import foreground\n"
            f"def work():\n{work}\nsys.exit(foreground.run(work))"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.child = int(self.process.stdout.readline())
        self._child_end = os.pidfd_open(self.child)

    def ended(self) -> tuple[int, str]:
        """Return the status and what was said, once all is over."""
        _, err = self.process.communicate(timeout=60)
        return self.process.returncode, err

    def close(self) -> None:
        """End what is left."""
        self.process.kill()
        if self.process.stdout is not None and not self.process.stdout.closed:
            self.process.communicate()
        os.close(self._child_end)

    def child_has_ended(self) -> bool:
        """Wait for the end of the child; return False if a minute is not enough."""
        ended, _, _ = select.select([self._child_end], [], [], 60)
        return bool(ended)


@pytest.fixture
def running(request: pytest.FixtureRequest) -> Iterator[Running]:
    made = Running(request.param)
    yield made
    made.close()


@pytest.mark.parametrize("running", [HEARS], indirect=True)
def test_a_child_that_handles_the_signal_ends_by_itself(running: Running) -> None:
    """With its own output and exit code."""
    running.process.send_signal(signal.SIGINT)
    assert running.ended() == (7, "I am done\n")


@pytest.mark.parametrize("running", [HEARS], indirect=True)
def test_a_terminal_signals_both(running: Running) -> None:
    """The child is interrupted once, and its clean-up is not."""
    os.kill(running.child, signal.SIGINT)
    running.process.send_signal(signal.SIGINT)
    assert running.ended() == (7, "I am done\n")


@pytest.mark.parametrize("running", [IS_DEAF], indirect=True)
@pytest.mark.parametrize(
    ("number", "status", "says"),
    [
        (signal.SIGINT, 130, "recollect: Interrupted.\n"),
        (signal.SIGTERM, 143, "recollect: Stopped by SIGTERM.\n"),
    ],
)
def test_a_child_that_ignores_the_signal_is_killed(
    running: Running, number: signal.Signals, status: int, says: str
) -> None:
    """The parent prints why."""
    running.process.send_signal(number)
    assert running.ended() == (status, says)
    assert running.child_has_ended()


@pytest.mark.parametrize("running", [IS_DEAF], indirect=True)
def test_a_child_killed_by_something_else_is_a_failed_run(running: Running) -> None:
    """Most likely for want of memory."""
    os.kill(running.child, signal.SIGKILL)
    assert running.ended() == (1, "recollect: The process was killed, most likely for want of memory.\n")


@pytest.mark.parametrize("running", [IS_DEAF], indirect=True)
def test_the_child_dies_with_the_parent(running: Running) -> None:
    """Whatever ends the parent."""
    running.process.kill()
    assert running.child_has_ended()


@pytest.mark.parametrize(
    "running", [f"    print(os.getpid(), flush=True)\n    return {n}" for n in (0, 3)], indirect=True
)
def test_the_exit_code_is_passed_on(running: Running, request: pytest.FixtureRequest) -> None:
    """Whatever it is."""
    assert running.ended() == (int(request.node.callspec.params["running"][-1]), "")
