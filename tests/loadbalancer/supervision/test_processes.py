"""Spawning, stopping and recognising real processes."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from loadbalancer.supervision.processes import Child, Command, group_members, run_to_end, spawn

# A leader with a worker that ignores SIGTERM, like an nginx worker whose master was killed; prints both pids.
LEADER = """
import os, signal, subprocess, sys, time
worker = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); \
print('worker', flush=True); time.sleep(600)"])
print(os.getpid(), worker.pid, flush=True)
time.sleep(600)
"""


def state(pid: int) -> str:
    """Return the state letter of proc(5); X if there is no process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "X"


def alive(pid: int) -> bool:
    return state(pid) not in "ZX"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Child]]:
    """Start a Python program as a part; what is left of it is killed after the test."""
    children: list[Child] = []

    def run(program: str) -> Child:
        command = Command((sys.executable, "-c", program), dict(os.environ), tmp_path / "part.out")
        children.append(spawn(command))
        return children[-1]

    yield run
    for child in children:
        child.reap()


def numbers(output: Path, wait_until: Callable[..., None]) -> tuple[int, int]:
    wait_until(lambda: output.exists() and "worker" in output.read_text() and " " in output.read_text())
    leader, worker = next(line for line in output.read_text().splitlines() if " " in line).split()
    return int(leader), int(worker)


def test_a_child_leads_a_session_and_group_of_its_own(start: Callable[..., Child]) -> None:
    """A signal to its group reaches exactly its processes."""
    child = start("import time; time.sleep(600)")
    assert os.getpgid(child.pid) == os.getsid(child.pid) == child.pid
    assert not child.exited()


def test_reaping_kills_the_rest_of_the_group(
    start: Callable[..., Child], tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    """A killed leader leaves its workers behind; they are gone before a replacement starts."""
    child = start(LEADER)
    leader, worker = numbers(tmp_path / "part.out", wait_until)
    assert leader == child.pid
    os.kill(leader, signal.SIGKILL)
    wait_until(child.exited)
    assert alive(worker)
    assert child.reap() == -signal.SIGKILL
    wait_until(lambda: not alive(worker))


def test_a_frozen_child_is_thawed_to_stop(start: Callable[..., Child], wait_until: Callable[..., None]) -> None:
    """A frozen process handles no signal."""
    child = start("import time; time.sleep(600)")
    os.kill(child.pid, signal.SIGSTOP)
    child.stop()
    wait_until(child.exited)
    assert child.reap() == -signal.SIGTERM


def test_the_group_of_a_child_is_thawed_to_stop(
    start: Callable[..., Child], tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    """nginx's master waits for its workers to stop."""
    child = start(LEADER)
    leader, worker = numbers(tmp_path / "part.out", wait_until)
    os.killpg(leader, signal.SIGSTOP)
    wait_until(lambda: state(worker) == "T")
    child.stop()
    wait_until(lambda: state(worker) == "S")


def test_signals_to_a_reaped_child_go_nowhere(start: Callable[..., Child]) -> None:
    """Its pid may belong to another process."""
    child = start("raise SystemExit(3)")
    assert child.reap() in {3, -signal.SIGKILL}
    child.stop()
    child.kill()
    assert child.exited()
    assert child.reap() in {3, -signal.SIGKILL}


def test_a_log_over_its_limit_is_rotated_and_its_writer_opens_a_new_one(
    tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    """One older log is kept; SIGUSR1 makes the process reopen it; a log within its limit stays."""
    log, short = tmp_path / "long.log", tmp_path / "short.log"
    program = f"""
import signal, time
def reopen(*_):
    with open({str(log)!r}, "w") as file:
        file.write("new")
signal.signal(signal.SIGUSR1, reopen)
print("listening", flush=True)
time.sleep(600)
"""
    command = Command(
        (sys.executable, "-c", program),
        dict(os.environ),
        tmp_path / "part.out",
        logs=(log, short, tmp_path / "absent.log"),
        log_limit_bytes=10,
    )
    child = spawn(command)
    try:
        wait_until(lambda: "listening" in (tmp_path / "part.out").read_text(), what="the program")
        log.write_text("x" * 11)
        short.write_text("x" * 10)
        assert child.rotate_logs()
        child.reopen_logs()
        wait_until(lambda: log.exists() and log.read_text() == "new", what="the new log")
        assert (tmp_path / "long.log.1").read_text() == "x" * 11
        assert short.read_text() == "x" * 10
    finally:
        child.reap()


def test_output_is_appended_and_rotated(start: Callable[..., Child], tmp_path: Path) -> None:
    """The output of a part does not fill the disk over months of restarts."""
    output = tmp_path / "part.out"
    output.write_text("before\n")
    child = start("print('after', flush=True)")
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    child.reap()
    assert output.read_text() == "before\nafter\n"
    with output.open("ab") as file:
        file.truncate(9 * 1024 * 1024)
    start("pass").reap()
    assert output.stat().st_size == 0
    assert output.with_name("part.out.1").stat().st_size == 9 * 1024 * 1024


def test_children_die_with_their_parent(tmp_path: Path, wait_until: Callable[..., None]) -> None:
    """The kernel sends them SIGTERM when their parent is killed."""
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            (
                "import os, sys, time; from pathlib import Path\n"
                "from loadbalancer.supervision.processes import Command, spawn\n"
                f"child = spawn(Command((sys.executable, '-c', 'import time; time.sleep(600)'), dict(os.environ), "
                f"Path({str(tmp_path / 'part.out')!r})))\nprint(child.pid, flush=True)\ntime.sleep(600)"
            ),
        ],
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
    assert alive(pid)
    parent.kill()
    parent.wait()
    wait_until(lambda: not alive(pid))


def test_the_processes_of_a_part_are_recognised_by_its_output(
    start: Callable[..., Child], tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    """A worker too, also after its leader; not a process of another part, nor one with a reused pid."""
    child = start(LEADER)
    leader, worker = numbers(tmp_path / "part.out", wait_until)
    output = str(tmp_path / "part.out")
    assert sorted(group_members(leader, output)) == sorted([leader, worker])
    assert group_members(leader, str(tmp_path / "other.out")) == []
    assert group_members(os.getpid(), output) == []
    os.kill(leader, signal.SIGKILL)
    wait_until(child.exited)
    assert group_members(leader, output) == [worker]
    child.reap()
    wait_until(lambda: group_members(leader, output) == [])


def test_run_to_end_returns_status_and_output() -> None:
    """Of both streams."""
    program = "import sys; print('out', flush=True); print('err', file=sys.stderr); sys.exit(3)"
    assert run_to_end([sys.executable, "-c", program], 10.0) == (3, "out\nerr\n")


def test_run_to_end_kills_a_program_that_runs_on() -> None:
    """The error names the program."""
    with pytest.raises(TimeoutError, match=r"did not exit within 0\.1 s"):
        run_to_end([sys.executable, "-c", "import time; time.sleep(600)"], 0.1)


def test_orphans_are_reaped_and_own_children_are_not() -> None:
    """In a subreaper, which inherits orphans as PID 1 of a container does."""
    program = """
import ctypes, os, subprocess, time
from pathlib import Path
from loadbalancer.supervision.processes import reap_orphans
assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER
def zombies():
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = path.read_text().rpartition(")")
        except OSError:
            continue
        if rest.split()[:2] == ["Z", str(os.getpid())]:
            found.add(int(name.split()[0]))
    return found
def wait_for(count):
    deadline = time.monotonic() + 20
    while len(zombies()) != count:
        assert time.monotonic() < deadline, zombies()
        time.sleep(0.01)
child = subprocess.Popen(["sh", "-c", "exit 7"])
own, parent = os.getpid(), os.fork()
if parent == 0:
    if os.fork() == 0:
        # Not before it is an orphan, or its parent could reap it.
        while os.getppid() != own:
            time.sleep(0.001)
        os._exit(3)
    os._exit(0)
os.waitpid(parent, 0)
wait_for(2)
reap_orphans({child.pid})
assert zombies() == {child.pid}
assert child.wait() == 7
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[3], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
