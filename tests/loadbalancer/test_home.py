"""Holding a home directory, and the processes that a killed holder left."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from loadbalancer import home, roster
from loadbalancer.errors import AlreadyRunning, NotRunning
from loadbalancer.roster import Row


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds tmp_path / "var"."""
    program = (
        f"import sys; from pathlib import Path; from loadbalancer import home\n"
        f"with home.held(Path({str(tmp_path / 'var')!r})): print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == b"held\n"
    with process.stdin, process.stdout:
        yield process
    process.kill()
    process.wait()


def test_a_second_holder_is_refused_with_the_pid_of_the_first(holder: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """The first holder keeps the directory."""
    refused = pytest.raises(AlreadyRunning, match=rf"already running in .*/var \(process {holder.pid}\)")
    with refused, home.held(tmp_path / "var"):
        pytest.fail("two hold it")
    assert home.holder_pid(tmp_path / "var") == holder.pid


def test_the_kernel_releases_the_lock_of_a_killed_holder(holder: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """No file has to be removed by hand."""
    holder.kill()
    holder.wait()
    with pytest.raises(NotRunning, match="Nothing runs in"):
        home.holder_pid(tmp_path / "var")
    with home.held(tmp_path / "var"):
        assert home.holder_pid(tmp_path / "var") == os.getpid()


def test_a_holder_leaves_only_the_home(tmp_path: Path) -> None:
    """The home has mode 0700; run/ is removed with the holder."""
    with home.held(tmp_path / "var"):
        assert (tmp_path / "var").stat().st_mode & 0o777 == 0o700
        assert (tmp_path / "var" / "run" / "lock").read_text() == f"{os.getpid()}\n"
    assert list((tmp_path / "var").iterdir()) == []
    with pytest.raises(NotRunning):
        home.holder_pid(tmp_path / "var")


def left_behind(tmp_path: Path, program: str) -> tuple[subprocess.Popen[bytes], Row]:
    output = tmp_path / "replica-0.out"
    with output.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-c", program], stdout=file, start_new_session=True)
    return process, Row("replica-0", process.pid, "127.0.0.1", 1, 2, "ready", 0, str(output))


STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
)
# Programs and their grace periods; the stubborn one uses up all of its own.
GRACES_S = {"import time; print('up', flush=True); time.sleep(600)": 10.0, STUBBORN: 0.1}


@pytest.mark.parametrize("program", GRACES_S)
def test_leftovers_are_ended_before_anything_starts(
    program: str, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    """Stopped gracefully or else killed, even if frozen."""
    process, row = left_behind(tmp_path, program)
    wait_until(lambda: Path(row.output).read_text() == "up\n")
    os.kill(process.pid, signal.SIGSTOP)
    (tmp_path / "run").mkdir()
    roster.write(tmp_path, [row])
    notices: list[str] = []
    home.end_leftovers(tmp_path, notices.append, grace_s=GRACES_S[program])
    assert process.wait(1) == (-signal.SIGKILL if program == STUBBORN else -signal.SIGTERM)
    assert notices == ["An earlier run was killed; ending its processes: replica-0."]
    assert not roster.path_in(tmp_path).exists()


def test_a_foreign_process_with_a_reused_pid_is_not_ended(tmp_path: Path) -> None:
    """Rows outlive their processes, and the kernel reuses pids."""
    process, row = left_behind(tmp_path, "import time; time.sleep(600)")
    (tmp_path / "run").mkdir()
    foreign = Row(row.name, row.pid, row.host, row.port, row.admin_port, row.state, row.restarts, "/elsewhere.out")
    roster.write(tmp_path, [foreign])
    notices: list[str] = []
    home.end_leftovers(tmp_path, notices.append, grace_s=1.0)
    assert process.poll() is None
    assert notices == []
    process.kill()
    process.wait()
