"""Spawning, ending and recognising real processes."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from loadbalancer.processes import Child, Command, group_members, run_to_end, spawn

# A leader with a worker that ignores SIGTERM, like an nginx worker whose master was killed; prints both numbers.
LEADER = """
import os, signal, subprocess, sys, time
worker = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); \
print('worker', flush=True); time.sleep(600)"])
print(os.getpid(), worker.pid, flush=True)
time.sleep(600)
"""


def state(pid: int) -> str:
    """One letter, as proc(5) has it; X where there is no process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "X"


def alive(pid: int) -> bool:
    return state(pid) not in "ZX"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Child]]:
    """Start a Python program as a part; whatever is left of it is killed in the end."""
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
    """So that a signal to its group reaches all of it and nobody else."""
    child = start("import time; time.sleep(600)")
    assert os.getpgid(child.pid) == os.getsid(child.pid) == child.pid
    assert not child.ended()


def test_reaping_kills_the_rest_of_the_group(
    start: Callable[..., Child], tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    """A killed leader leaves its workers behind; they are gone before anything is started in its place."""
    child = start(LEADER)
    leader, worker = numbers(tmp_path / "part.out", wait_until)
    assert leader == child.pid
    os.kill(leader, signal.SIGKILL)
    wait_until(child.ended)
    assert alive(worker)
    assert child.reap() == -signal.SIGKILL
    wait_until(lambda: not alive(worker))


def test_a_frozen_child_hears_that_it_is_to_stop(start: Callable[..., Child], wait_until: Callable[..., None]) -> None:
    """It is thawed, for a stopped process does nothing about a signal."""
    child = start("import time; time.sleep(600)")
    os.kill(child.pid, signal.SIGSTOP)
    child.stop()
    wait_until(child.ended)
    assert child.reap() == -signal.SIGTERM


def test_what_a_child_started_is_thawed_too(
    start: Callable[..., Child], tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    """nginx's master hears that it is to stop and waits for its workers, which must hear of it as well."""
    child = start(LEADER)
    leader, worker = numbers(tmp_path / "part.out", wait_until)
    os.killpg(leader, signal.SIGSTOP)
    wait_until(lambda: state(worker) == "T")
    child.stop()
    wait_until(lambda: state(worker) == "S")


def test_signals_to_a_child_that_is_reaped_go_nowhere(start: Callable[..., Child]) -> None:
    """Its number may be somebody else's by now."""
    child = start("raise SystemExit(3)")
    assert child.reap() in {3, -signal.SIGKILL}
    child.stop()
    child.kill()
    assert child.ended()
    assert child.reap() in {3, -signal.SIGKILL}


def test_a_log_over_its_limit_is_set_aside_and_the_writer_goes_on_in_a_new_one(
    tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    """One older log is kept; the process is told by SIGUSR1, and a log within its limit stays."""
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
        assert child.bound_logs()
        child.reopen_logs()
        wait_until(lambda: log.exists() and log.read_text() == "new", what="the new log")
        assert (tmp_path / "long.log.1").read_text() == "x" * 11
        assert short.read_text() == "x" * 10
    finally:
        child.reap()


def test_output_is_appended_and_set_aside_when_it_is_long(start: Callable[..., Child], tmp_path: Path) -> None:
    """A part that restarts for months does not fill the disk with what it says."""
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
    """Killed, a parent cannot tell them; the kernel does, with SIGTERM."""
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            (
                "import os, sys, time; from pathlib import Path; from loadbalancer.processes import Command, spawn\n"
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
    """The worker too, and after its leader is gone; a process of another part, or a number used again, is not ours."""
    child = start(LEADER)
    leader, worker = numbers(tmp_path / "part.out", wait_until)
    output = str(tmp_path / "part.out")
    assert sorted(group_members(leader, output)) == sorted([leader, worker])
    assert group_members(leader, str(tmp_path / "other.out")) == []
    assert group_members(os.getpid(), output) == []
    os.kill(leader, signal.SIGKILL)
    wait_until(child.ended)
    assert group_members(leader, output) == [worker]
    child.reap()
    wait_until(lambda: group_members(leader, output) == [])


def test_a_short_program_gives_its_status_and_all_it_said() -> None:
    """Both streams."""
    program = "import sys; print('out', flush=True); print('err', file=sys.stderr); sys.exit(3)"
    assert run_to_end([sys.executable, "-c", program], 10.0) == (3, "out\nerr\n")


def test_a_short_program_that_does_not_end_is_killed() -> None:
    """And named."""
    with pytest.raises(TimeoutError, match=r"did not end within 0\.1 s"):
        run_to_end([sys.executable, "-c", "import time; time.sleep(600)"], 0.1)


def test_orphans_are_reaped_and_our_own_children_left_to_us() -> None:
    """A process to which the kernel gives orphans, as it does to PID 1 of a container."""
    program = """
import ctypes, os, subprocess, time
from pathlib import Path
from loadbalancer.processes import reap_orphans
assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER
def zombies():
    stats = [path.read_text().rpartition(")") for path in Path("/proc").glob("[0-9]*/stat") if path.exists()]
    return {int(name.split()[0]) for name, _, rest in stats if rest.split()[:2] == ["Z", str(os.getpid())]}
def wait_for(count):
    deadline = time.monotonic() + 20
    while len(zombies()) != count:
        assert time.monotonic() < deadline, zombies()
        time.sleep(0.01)
ours = subprocess.Popen(["sh", "-c", "exit 7"])
subprocess.run(["sh", "-c", "sh -c 'exit 3' & :"])
wait_for(2)
reap_orphans({ours.pid})
assert zombies() == {ours.pid}
assert ours.wait() == 7
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
