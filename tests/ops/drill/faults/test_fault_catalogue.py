import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from loadbalancer import roster
from loadbalancer.binaries import find_redis
from loadbalancer.supervision.processes import Child, Command, spawn
from ops.drill.faults import disk_faults, redis_faults, signal_faults
from ops.drill.faults.clocks import Clocks
from ops.drill.faults.fault import Injection
from ops.drill.system import redis_commands
from ops.drill.system.drilled_system import DrilledSystem, Instruments
from ops.drill.system.needs import Need
from ops.drill.system.output_pipe import OutputPipe
from service.errors import RunError
from tests.conftest import RedisServer

# One write each: their lines must not mix.
_FAMILY = "import os, time; os.fork() or os.fork(); os.write(1, b'up\\n'); time.sleep(600)"


def _injection(*targets: str, hold_s: float = 0.0, draw: float = 0.0) -> Injection:
    return Injection(0.0, targets, hold_s, draw)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


class _Parts:
    """Real processes, and the topology that names them."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "var"
        (self.home / "run").mkdir(parents=True)
        self._folder = folder
        self.children: dict[str, Child] = {}
        self.system = DrilledSystem(self.home, folder, os.environ)

    def start(self, name: str, program: str) -> int:
        """Start a Python program as a part; return its process."""
        return self.run(name, [sys.executable, "-c", program])

    def run(self, name: str, argv: list[str]) -> int:
        self.children[name] = spawn(Command(tuple(argv), os.environ, self._folder / f"{name}.out"))
        rows = [
            roster.Row(part, child.pid, "127.0.0.1", 1, None, "ready", 0, str(self._folder / f"{part}.out"))
            for part, child in self.children.items()
        ]
        roster.write(self.home, rows)
        return self.children[name].pid

    def printed(self, name: str) -> list[str]:
        return (self._folder / f"{name}.out").read_text().splitlines()

    def end(self) -> None:
        for child in self.children.values():
            child.reap()


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[_Parts]:
    made = _Parts(tmp_path)
    yield made
    made.end()


@pytest.fixture
def family(parts: _Parts, wait_until: Callable[..., None]) -> list[int]:
    """A part of three processes; its first one comes first."""
    leader = parts.start("nginx-0", _FAMILY)
    wait_until(lambda: parts.printed("nginx-0").count("up") == 3, what="three processes to be up")
    pids = parts.system.send_signal("nginx-0", signal.SIGCONT)
    assert leader in pids
    assert len(pids) == 3
    return [leader, *(pid for pid in pids if pid != leader)]


async def test_a_kill_reaches_the_whole_group(
    parts: _Parts, family: list[int], await_until: Callable[..., Awaitable[None]]
) -> None:
    """It is recorded with its process."""
    async with signal_faults.kill(parts.system, _injection("nginx-0", "redis")):
        pass
    await await_until(lambda: parts.system.send_signal("nginx-0", signal.SIGCONT) == [], what="all of them to be gone")
    assert [(death.name, death.pid) for death in parts.system.kills] == [("nginx-0", family[0])]
    assert parts.system.missed_injections == 0
    async with signal_faults.kill(parts.system, _injection("nginx-0")):
        pass
    assert parts.system.missed_injections == 1


async def test_a_worker_is_one_process_and_never_the_first(
    parts: _Parts, family: list[int], await_until: Callable[..., Awaitable[None]]
) -> None:
    """The draw chooses it."""
    for draw in (0.99, 0.0):
        async with signal_faults.kill(parts.system, _injection("nginx-0/worker", draw=draw)):
            pass
    await await_until(lambda: parts.system.send_signal("nginx-0", signal.SIGCONT) == [family[0]], what="both gone")
    assert parts.system.kills == []


@pytest.mark.parametrize("end", ["in order", "error", "cancelled"])
async def test_frozen_processes_are_thawed_however_the_fault_ends(
    parts: _Parts, family: list[int], end: str, await_until: Callable[..., Awaitable[None]]
) -> None:
    """In time, by an error, by Ctrl-C."""
    frozen = asyncio.Event()

    async def drill() -> None:
        async with signal_faults.freeze(parts.system, _injection("nginx-0")):
            await await_until(lambda: {_state(pid) for pid in family} == {"T"}, what="all to be frozen")
            frozen.set()
            if end == "error":
                raise RunError("something is wrong.")
            if end == "cancelled":
                await asyncio.Event().wait()

    task = asyncio.create_task(drill())
    await frozen.wait()
    if end == "cancelled":
        task.cancel()
    with contextlib.suppress(RunError, asyncio.CancelledError):
        await task
    await await_until(lambda: "T" not in {_state(pid) for pid in family}, what="all to be thawed")


def test_a_foreign_process_with_a_part_s_pid_gets_no_signal(parts: _Parts) -> None:
    """Pids are reused: a process whose output is not the part's file is not the part."""
    foreign = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    try:
        row = roster.Row("replica-0", foreign.pid, None, None, None, "ready", 0, "/elsewhere.out")
        roster.write(parts.home, [row])
        assert parts.system.send_signal("replica-0", signal.SIGKILL) == []
        assert not parts.system.signal_leader("replica-0", signal.SIGKILL)
        assert foreign.poll() is None
    finally:
        foreign.kill()
        foreign.wait()


async def test_a_part_that_is_kept_down_is_killed_as_often_as_it_starts(
    parts: _Parts, await_until: Callable[..., Awaitable[None]]
) -> None:
    """Until the fault ends."""
    program = "import time; time.sleep(600)"
    parts.start("replica-0", program)
    async with signal_faults.keep_down(parts.system, _injection("replica-0")):
        for times in (1, 2):
            await await_until(lambda times=times: len(parts.system.kills) == times, what="a death")
            parts.children["replica-0"].reap()
            if times == 1:
                parts.start("replica-0", program)
    pid = parts.start("replica-0", program)
    assert _state(pid) != "Z"
    assert len(parts.system.kills) == 2


@pytest.fixture
async def with_redis(redis_server: RedisServer, tmp_path: Path) -> AsyncIterator[DrilledSystem]:
    """A system whose Redis is a real one."""
    with OutputPipe(tmp_path / "pipe", tmp_path / "output") as output:
        prepared = Instruments(output, redis=redis_server.port)
        yield DrilledSystem(tmp_path / "var", tmp_path, os.environ, prepared)


@pytest.mark.parametrize(("fault", "word"), [(redis_faults.out_of_memory, "OOM"), (redis_faults.read_only, "READONLY")])
async def test_a_redis_that_refuses_writes_accepts_them_again(
    with_redis: DrilledSystem,
    redis_server: RedisServer,
    fault: Callable[..., contextlib.AbstractAsyncContextManager[None]],
    word: str,
) -> None:
    """Even if the drill is interrupted; its data is still there."""
    port = redis_server.port
    await redis_commands.call(port, "SET", "before", "1")

    async def drill() -> None:
        async with fault(with_redis, _injection("redis")):
            with pytest.raises(RunError, match=word):
                await redis_commands.call(port, "XADD", "s", "*", "k", "v")
            raise ValueError("broken off")

    with pytest.raises(ValueError, match="broken off"):
        await drill()
    assert await redis_commands.call(port, "XADD", "s", "1-1", "k", "v") == "1-1"
    assert await redis_commands.call(port, "GET", "before") == "1"


async def test_misconf_needs_no_full_disk(tmp_path: Path, free_port: Callable[[], int], parts: _Parts) -> None:
    """Snapshots fail, so writes are refused; afterwards both work, with the old settings."""
    port = free_port()
    options = ["--port", str(port), "--dir", str(tmp_path), "--save", "", "--enable-protected-configs", "local"]
    parts.run("redis", [str(find_redis(None).path), *options])
    with OutputPipe(tmp_path / "pipe", tmp_path / "output") as output:
        system = DrilledSystem(tmp_path / "var", tmp_path, os.environ, Instruments(output, redis=port))
        await redis_faults.call_until_done(port, "PING")
        async with redis_faults.misconf(system, _injection("redis")):
            with pytest.raises(RunError, match="MISCONF"):
                await redis_commands.call(port, "SET", "k", "v")
        assert await redis_commands.call(port, "SET", "k", "v") == "OK"
        assert await redis_commands.call(port, "CONFIG", "GET", "save") == ["save", ""]
        assert await redis_commands.call(port, "CONFIG", "GET", "dir") == ["dir", str(tmp_path)]


async def test_a_renamed_stream_is_removed_in_the_end(with_redis: DrilledSystem, redis_server: RedisServer) -> None:
    """The draw chooses the stream."""
    port = redis_server.port
    for name in ("recollect:events:{a}", "recollect:events:{b}"):
        await redis_commands.call(port, "XADD", name, "1-1", "k", "v")
    async with redis_faults.rename_stream(with_redis, _injection("redis", draw=0.99)):
        assert await redis_commands.call(port, "KEYS", "recollect:events:*") == ["recollect:events:{a}"]
    assert await redis_commands.call(port, "DBSIZE") == 1
    await redis_commands.call(port, "FLUSHALL")
    async with redis_faults.rename_stream(with_redis, _injection("redis")):
        pass
    assert with_redis.problems == ["Redis holds no stream to rename"]


@pytest.mark.parametrize("old", [False, True])
async def test_redis_loses_its_files_while_it_is_down(
    parts: _Parts, free_port: Callable[[], int], await_until: Callable[..., Awaitable[None]], old: bool
) -> None:
    """Restarted it is empty, or holds an old copy."""
    port = free_port()
    folder = parts.home / "redis"
    folder.mkdir()
    options = ["--port", str(port), "--dir", str(folder), "--appendonly", "yes", "--appendfsync", "always"]
    argv = [str(find_redis(None).path), *options, "--save", ""]
    parts.run("redis", argv)
    await redis_faults.call_until_done(port, "SET", "early", "1")
    fault = redis_faults.restore_old if old else redis_faults.wipe
    async with contextlib.AsyncExitStack() as stack:
        striking = asyncio.create_task(stack.enter_async_context(fault(parts.system, _injection("redis", hold_s=0.5))))
        if old:
            copy = folder / "drill-copy" / "appendonly.aof.manifest"
            await await_until(copy.exists, what="the copy")
            await redis_commands.call(port, "SET", "late", "1")
        await striking
        parts.children["redis"].reap()
        parts.run("redis", argv)
        await redis_faults.call_until_done(port, "PING")
        assert await redis_commands.call(port, "MGET", "early", "late") == (["1", None] if old else [None, None])
    assert not (folder / "drill-copy").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)]
    if shutil.which("mount") is None or subprocess.run(argv, capture_output=True).returncode != 0:
        pytest.skip("small disks cannot be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


async def test_a_disk_stays_full_while_the_fault_lasts(
    small_disk: Path, tmp_path: Path, await_until: Callable[..., Awaitable[None]]
) -> None:
    """Freed space is filled again."""
    spare = small_disk / "spare"
    spare.write_bytes(b"x" * 100_000)

    def is_full() -> bool:
        return os.statvfs(small_disk).f_bavail == 0

    with OutputPipe(tmp_path / "pipe", tmp_path / "output") as output:
        system = DrilledSystem(tmp_path / "var", tmp_path, os.environ, Instruments(output, spool_disk=small_disk))
        assert system.unmet_reason(Need.SPOOL_DISK) is None
        async with disk_faults.full(lambda prepared: prepared.spool_disk)(system, _injection()):
            await await_until(is_full, what="the disk to be full")
            spare.unlink()
            await await_until(is_full, what="the disk to be full again")
    spare.write_bytes(b"x" * 900_000)


_SYNCING = """
import os, sys, time
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
while True:
    try:
        os.fdatasync(fd); print("ok", flush=True)
    except OSError as error:
        print(error.errno, flush=True)
    time.sleep(0.02)
"""


async def test_one_sync_fails_and_the_process_continues(
    parts: _Parts, tmp_path: Path, await_until: Callable[..., Awaitable[None]]
) -> None:
    """strace detaches afterwards."""
    if shutil.which("strace") is None:
        pytest.skip("there is no strace")
    pid = parts.run("replica-0", [sys.executable, "-c", _SYNCING, str(tmp_path / "file")])
    await await_until(lambda: "ok" in parts.printed("replica-0"), what="the first sync")
    tamper = disk_faults.traced("fdatasync:error=EIO:when=1")
    try:
        async with tamper(parts.system, _injection("replica-0")):
            await await_until(lambda: "5" in parts.printed("replica-0"), what="EIO")
    except RunError:
        pytest.skip("processes cannot be traced here")
    seen = len(parts.printed("replica-0"))
    await await_until(lambda: len(parts.printed("replica-0")) > seen + 2, what="more syncs")
    assert parts.printed("replica-0").count("5") == 1
    assert not disk_faults.is_traced(pid)


_CLOCK_PROGRAM = """
import os, time
while True:
    os.write(1, b"%d %d\\n" % (time.time(), time.monotonic()))
    time.sleep(0.02)
"""


async def test_one_part_s_wall_clock_moves_and_no_other(
    tmp_path: Path, await_until: Callable[..., Awaitable[None]]
) -> None:
    """At once and back again; the monotonic clock never moves."""
    if shutil.which("cc") is None and shutil.which("gcc") is None:
        pytest.skip("there is no C compiler")
    clocks = Clocks(tmp_path, ["replica-0", "replica-1"])
    children = [
        spawn(
            Command((sys.executable, "-c", _CLOCK_PROGRAM), {**os.environ, **clocks.environ}, tmp_path / f"{name}.out")
        )
        for name in ("replica-0", "replica-1", "other")
    ]

    def shifts_s() -> list[int]:
        now_s = time.time()
        last = [
            (tmp_path / f"{name}.out").read_text().splitlines()[-1:] for name in ("replica-0", "replica-1", "other")
        ]
        return [round((int(line[0].split()[0]) - now_s) / 3600) if line else 99 for line in last]

    try:
        await await_until(lambda: shifts_s() == [0, 0, 0], what="all clocks to be right")
        for hours in (1, -1, 0):
            clocks.shift("replica-0", hours * 3600)
            await await_until(lambda hours=hours: shifts_s() == [hours, 0, 0], what="one clock to move")
        monotonic_s = [int(line.split()[1]) for line in (tmp_path / "replica-0.out").read_text().splitlines()]
        assert monotonic_s == sorted(monotonic_s)
        assert monotonic_s[-1] - monotonic_s[0] < 60
    finally:
        for child in children:
            child.reap()


async def test_a_paused_reader_blocks_the_writer(tmp_path: Path, await_until: Callable[..., Awaitable[None]]) -> None:
    """Resumed, it reads every line."""
    with OutputPipe(tmp_path / "up.pipe", tmp_path / "up.out") as output:
        program = "for n in range(4000): print(n, flush=True)"
        output.pause()
        child = spawn(Command((sys.executable, "-c", program), os.environ, output.pipe))
        try:
            await await_until(lambda: _state(child.pid) == "S", what="the writer to be stuck")
            assert not child.exited()
            output.resume()
            await await_until(child.exited, what="the writer to end")
        finally:
            child.reap()
    assert (tmp_path / "up.out").read_text().splitlines() == [str(n) for n in range(4000)]
    assert output.last_line() == "3999"
    assert not (tmp_path / "up.pipe").exists()
