"""Faults of telemetry, logs and their disks do not affect each other or recommendations; with real processes."""

import asyncio
import contextlib
import errno
import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.models.snapshot import ModelSnapshot
from tests.integration.lone_replica import Site, Visitors, counts

Until = Callable[..., Awaitable[None]]
MakeSite = Callable[..., Site]
_AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")


@pytest.fixture
def make_site(
    tmp_path: Path,
    redis_server: Any,
    free_port: Callable[[], int],
    make_snapshot: Callable[..., ModelSnapshot],
    publish_snapshot: Callable[[Path, ModelSnapshot], str],
) -> Iterator[MakeSite]:
    """Return a function that lays out a site with a model, without starting it; settings by name."""
    made: list[Site] = []

    def make(**settings: str) -> Site:
        site = Site(tmp_path, redis_server.url, free_port)
        publish_snapshot(site.home / "models", make_snapshot(n_users=20))
        site.environ |= settings
        made.append(site)
        return site

    yield make
    for site in made:
        site.end()


@contextlib.contextmanager
def small_disk(path: Path, size_bytes: int) -> Iterator[None]:
    """Mount a disk in memory."""
    path.mkdir(parents=True, exist_ok=True)
    argv = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=0700", "recollect-test", str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@contextlib.asynccontextmanager
async def kept_full(disk: Path) -> AsyncIterator[None]:
    """Leave no room on a disk, whatever is removed from it meanwhile."""
    ballast = disk / "ballast"
    over = asyncio.Event()

    async def keep() -> None:
        while not over.is_set():
            _fill(ballast)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), 0.05)

    filling = asyncio.create_task(keep())
    try:
        yield
    finally:
        over.set()
        await filling
        ballast.unlink()


def _fill(ballast: Path) -> None:
    with ballast.open("ab", buffering=0) as file:
        size_bytes = 1 << 20
        while size_bytes:
            try:
                file.write(b"\0" * size_bytes)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                size_bytes //= 2


def full_pipe() -> tuple[int, int]:
    """Return the two ends of a pipe that takes nothing more."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"\n" * 4096)
    os.set_blocking(writer, True)
    return reader, writer


def bytes_below(*folders: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}


async def start(site: Site, await_until: Until) -> None:
    site.start_consumer()
    site.start_replica()
    await await_until(lambda: asyncio.to_thread(site.ready), 30, what="the site")


async def test_no_event_is_in_a_log_and_no_log_line_is_in_telemetry(
    make_site: MakeSite, redis_server: Any, await_until: Until
) -> None:
    """Neither users nor events are named in any log, also while Redis is away; telemetry holds nothing of the log."""
    site = make_site(RECOLLECT_LOG_LEVEL="debug")
    with (site.home.parent / "printed").open("wb") as printed:
        site.start_consumer(printed)
        site.start_replica(printed)
        await await_until(lambda: asyncio.to_thread(site.ready), 30, what="the site")
        async with Visitors(site.port, "canary") as visitors:
            await await_until(lambda: len(visitors.accepted) >= 10)
            redis_server.kill()
            before = len(visitors.accepted)
            await await_until(lambda: len(visitors.accepted) >= before + 10)
            redis_server.start()
        await await_until(lambda: site.has_archived(visitors.accepted | visitors.lists), 30, what="the archive")
        # Before the log and Redis are tidied up by their owners, everything that was sent on the way is still there.
        telemetry = bytes_below(site.home / "spool", site.home / "archive", redis_server.dir)
        site.stop()
    assert (visitors.failures, visitors.wrong, visitors.refused) == ([], [], 0)
    logs = bytes_below(site.logs) | {Path("printed"): (site.home.parent / "printed").read_bytes()}
    output = b"".join(logs.values())
    assert b'"logger": "recollect.replica"' in output
    assert b'"event": "Disconnected"' in output
    names = {b"canary", *(name.encode() for name in visitors.lists)}
    assert [(path, name) for path, data in logs.items() for name in names if name in data] == []
    assert any(b"canary-event-0" in data for data in telemetry.values())
    words = (b"replica serving", b"consumer started", b"recollect.replica", b"recollect.telemetry", b"Disconnected")
    assert [(path, word) for path, data in telemetry.items() for word in words if word in data] == []


async def test_output_and_log_without_a_reader(make_site: MakeSite, await_until: Until) -> None:
    """With a full pipe as output and another as log file, lists go on, lines are dropped and counted, and it stops."""
    site = make_site(RECOLLECT_LOG_QUEUE_LINES="1", RECOLLECT_LOG_LEVEL="debug")
    site.logs.mkdir()
    fifo = site.logs / "replica-0.log"
    os.mkfifo(fifo)
    stuck = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(stuck, b"\n" * 4096)
    reader, writer = full_pipe()
    try:
        site.start_consumer(writer)
        site.start_replica(writer)
        await await_until(lambda: asyncio.to_thread(site.ready), 30, what="the site")
        async with Visitors(site.port) as visitors:
            await await_until(lambda: len(visitors.accepted) >= 20)
            # Each of these is a line or two: a bad reload of the model, and telemetry's word on its connection.
            for turn in range(3):
                (site.home / "models" / "ACTIVE").write_text(f"no-such-model-{turn}\n")
                seen = len(visitors.lists)
                await await_until(lambda seen=seen: len(visitors.lists) >= seen + 80, 30)
            await await_until(lambda: asyncio.to_thread(lambda: site.metric("recollect_log_lines_dropped_total") > 0))
        assert (visitors.failures, visitors.wrong, visitors.refused) == ([], [], 0)
        await await_until(lambda: site.has_archived(visitors.accepted | visitors.lists), 30, what="the archive")
        assert set(await asyncio.to_thread(site.stop)) == {0}
    finally:
        for fd in (stuck, reader, writer):
            os.close(fd)


@_AS_ROOT
async def test_the_disk_of_the_logs_is_full(make_site: MakeSite, await_until: Until) -> None:
    """Lists and feedback go on, no line is waited for, and the lost ones are counted."""
    site = make_site(RECOLLECT_LOG_LEVEL="debug")
    with small_disk(site.logs, 1 << 20):
        async with kept_full(site.logs):
            await start(site, await_until)
            async with Visitors(site.port) as visitors:
                await await_until(lambda: len(visitors.accepted) >= 40, 30)
                dropped = await asyncio.to_thread(site.metric, "recollect_log_lines_dropped_total")
        assert (visitors.failures, visitors.wrong, visitors.refused) == ([], [], 0)
        assert dropped > 0
        await await_until(lambda: site.has_archived(visitors.accepted | visitors.lists), 30, what="the archive")
        assert set(await asyncio.to_thread(site.stop)) == {0}


@_AS_ROOT
async def test_the_disk_of_the_log_of_events_is_full(make_site: MakeSite, await_until: Until) -> None:
    """Lists go on; feedback is refused with a time to come back; what was dropped is told by gap records, exactly.

    With room again it heals within 5 s, and whatever was answered 202 is in the archive once.
    """
    site = make_site(
        RECOLLECT_SPOOL_SEGMENT_BYTES=str(64 * 1024),
        RECOLLECT_SPOOL_RING_BYTES=str(64 * 1024),
        RECOLLECT_SPOOL_SEGMENT_AGE_S="1",
    )
    spool = site.home / "spool"
    with small_disk(spool, 8 << 20):
        await start(site, await_until)
        async with Visitors(site.port) as visitors:
            await await_until(lambda: len(visitors.accepted) >= 20)
            async with kept_full(spool):
                await await_until(
                    lambda: asyncio.to_thread(lambda: site.metric("recollect_telemetry_dropped_total", "served") >= 20),
                    30,
                    what="drops",
                )
                await await_until(lambda: visitors.refused >= 20, 30, what="refusals")
            before = len(visitors.accepted)
            # The promise is 5 s.
            await await_until(lambda: len(visitors.accepted) > before, 5, what="the first 202")
            await await_until(lambda: len(visitors.accepted) >= before + 20, 30)
        assert (visitors.failures, visitors.wrong) == ([], [])
        await await_until(lambda: site.has_archived(visitors.accepted), 30, what="the archive")
        assert set(await asyncio.to_thread(site.stop)) == {0}
    events = site.archived()
    archived = counts(events)
    assert set(archived.values()) == {1}
    assert visitors.accepted <= set(archived)
    gap_counts: Counter[str] = Counter()
    for event in events:
        if event["class"] == "system" and event["kind"] == "gap":
            gap_counts[event["of_class"]] += event["count"]
    assert len(visitors.lists) == len(visitors.lists & set(archived)) + gap_counts["served"]
    # A report that was taken when its disk refused is refused too, and yet archived when the disk is back.
    assert visitors.refused == len(set(archived) - visitors.lists - visitors.accepted) + gap_counts["feedback"]


@contextlib.asynccontextmanager
async def tampered(pid: int, injection: str, await_until: Until) -> AsyncIterator[None]:
    """Have strace tamper with a process's calls to fdatasync."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    argv = ["strace", "-f", "-qq", "-o", os.devnull, "-e", "trace=fdatasync", "-e", f"inject=fdatasync:{injection}"]
    tracer = await asyncio.create_subprocess_exec(*argv, "-p", str(pid), stderr=subprocess.PIPE)
    try:
        await await_until(lambda: _is_traced(pid) or tracer.returncode is not None, what="strace")
        if not _is_traced(pid):
            pytest.skip(f"strace cannot attach here: {(await tracer.communicate())[1].decode().strip()}")
        yield
    finally:
        if tracer.returncode is None:
            # It lets go of the process before it ends.
            tracer.send_signal(signal.SIGTERM)
        await tracer.communicate()


def _is_traced(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return "TracerPid:\t0\n" not in status


@pytest.mark.parametrize("injection", ["error=EIO:when=2+9", "delay_exit=1500000:when=2+9"])
async def test_the_disk_of_the_log_of_events_fails_or_is_slow(
    make_site: MakeSite, await_until: Until, injection: str
) -> None:
    """No list notices; a report is refused rather than promised, and what was promised is in the archive once."""
    site = make_site()
    await start(site, await_until)
    async with Visitors(site.port) as visitors:
        await await_until(lambda: len(visitors.accepted) >= 10)
        async with tampered(site.replica_pid, injection, await_until):
            await await_until(lambda: visitors.refused >= 3, 60, what="a refusal")
            before = len(visitors.accepted)
            await await_until(lambda: len(visitors.accepted) >= before + 20, 60, what="feedback in between")
        before = len(visitors.accepted)
        await await_until(lambda: len(visitors.accepted) >= before + 20, 30, what="feedback afterwards")
    assert (visitors.failures, visitors.wrong) == ([], [])
    await await_until(lambda: site.has_archived(visitors.accepted | visitors.lists), 30, what="the archive")
    assert set(await asyncio.to_thread(site.stop)) == {0}
    archived = counts(site.archived())
    assert set(archived.values()) == {1}
    assert visitors.accepted | visitors.lists <= set(archived)
