"""A command as PID 1 of a PID namespace: no zombie stays, signals arrive, and the exit code is its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
_AS_PID_1 = ["unshare", "--fork", "--pid", "--mount-proc", "--kill-child"]
# The child leaves an orphan behind, which PID 1 inherits.
_ORPHAN = """
import os, signal, sys, time
from ops.console import first_process

first_process.split_off()
reading, writing = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        os.write(writing, b"%6d" % os.getpid())
        os.close(reading)
        sys.stdin.read(1)
        os._exit(0)
    os._exit(0)
os.wait()
orphan = int(os.read(reading, 6))
"""


@pytest.fixture(autouse=True)
def may_make_namespaces() -> None:
    if subprocess.run([*_AS_PID_1, "true"], stderr=subprocess.PIPE).returncode != 0:
        pytest.skip("this user may not make a PID namespace")


@contextmanager
def first_process(script: str) -> Iterator[subprocess.Popen[str]]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([*_AS_PID_1, sys.executable, "-c", script], cwd=ROOT, text=True, **pipes)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def pid_1(process: subprocess.Popen[str]) -> int:
    """Return the pid of the inner PID 1, outside."""
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(child)


def test_an_orphan_is_reaped() -> None:
    """A zombie would stay in /proc until its parent, PID 1, waits for it."""
    gone = """
print(os.getpid(), orphan, flush=True)
while os.path.exists(f"/proc/{orphan}"):
    time.sleep(0.01)
print("reaped", flush=True)
sys.exit(5)
"""
    with first_process(_ORPHAN + gone) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        own, orphan = map(int, process.stdout.readline().split())
        assert 1 < own < orphan
        process.stdin.write("x")
        process.stdin.flush()
        assert process.stdout.readline() == "reaped\n"
        assert process.wait(20) == 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_reaches_the_command(number: signal.Signals) -> None:
    """A PID 1 without a handler would not get it."""
    script = f"""
import signal, sys
from ops.console import first_process
first_process.split_off()
signal.signal({int(number)}, lambda *_: sys.exit(7))
print("waiting", flush=True)
signal.pause()
"""
    with first_process(script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        os.kill(pid_1(process), number)
        assert process.wait(20) == 7


def test_a_command_that_handles_no_signal_ends_by_it() -> None:
    """As PID 1 itself it would go on; the exit code is the one of a shell."""
    script = """
import signal
from ops.console import first_process
first_process.split_off()
print("waiting", flush=True)
signal.pause()
"""
    with first_process(script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        os.kill(pid_1(process), signal.SIGTERM)
        assert process.wait(20) == 128 + signal.SIGTERM


def test_every_verb_but_the_supervisors_splits_off() -> None:
    """Errors and exit codes are as without it."""
    argv = [*_AS_PID_1, sys.executable, "-m", "ops", "models", "activate", "none"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode in {1, 2}
    assert done.stderr.startswith("recollect: ")
