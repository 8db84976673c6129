"""The size and speed of live state for many users; also two measured processes, a writer and a reader.

Invariants: the writer stores events in batches, as the consumer does when it rebuilds a state; users are drawn at
random, and items have a long tail. Readers map the same files at the same time, and a page counts for each by its share
(Pss of `/proc/self/smaps_rollup`).
"""

import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ops.benchmarks.measured_process import measured_main
from ops.benchmarks.telemetry.sample import click, served
from service.errors import RunError
from telemetry.archive.archive import Archive
from telemetry.archive.archive_files import date_folder
from telemetry.batch import EventPosition, Position
from telemetry.catalogue.commit import CommitContent, Progress
from telemetry.events import encode
from telemetry.live.layer_merge import KeepRules
from telemetry.live.live_event import DEFAULT_TYPES, LiveEvent
from telemetry.live.state_manifest import StateManifest
from telemetry.live.state_restore import Wanted, restore
from telemetry.live.state_snapshot import StateSnapshot
from telemetry.live.state_store import StateStore

_ITEMS: Final = 100_000
_PRODUCERS: Final = tuple(f"0193aaaa-bbbb-7ccc-8ddd-{number:012x}" for number in range(8))
_START_MS: Final = 1_795_000_000_000
_STEP_MS: Final = 250
_BATCH_EVENTS: Final = 100_000
_RULES: Final = KeepRules(100, 0)
_LOOK_UPS: Final = 20_000
_MILLION: Final = 1_000_000
_COMMIT_LINES: Final = 1_000


@dataclass(frozen=True)
class LiveTask:
    """A state to write: how many users, and the mean number of their events; `interval_events` come between saves.

    A smaller one is made from an archive of `archived_lines` lines, a multiple of 1,000.
    """

    directory: str
    users: int
    events_per_user: int
    interval_events: int
    archived_lines: int = 100_000
    seed: int = 7


@dataclass(frozen=True, kw_only=True)
class LiveFigures:
    """The figures of one state.

    Attributes:
        write_s: Seconds to store all events, merging included.
        save_s: Median seconds of a save of the events of an interval.
        merge_s: Seconds to merge everything into one layer.
        peak_bytes: Most resident memory of the writer.
        state_bytes: The size of the layers.
        layers: Their number before the last merge.
        events: Events stored.
        lines_per_s: Lines of an archive, nine of ten of them served lists, in a second of processor time, to make the
            state from the archive.
    """

    write_s: float
    save_s: float
    merge_s: float
    peak_bytes: int
    state_bytes: int
    layers: int
    events: int
    lines_per_s: float


@dataclass(frozen=True, slots=True)
class ReaderFigures:
    """The figures of readers of one state: microseconds of a look-up, and bytes of memory."""

    first_us: float
    median_us: float
    p99_us: float
    pss_bytes: int
    mapped_bytes: int


def events_of(task: LiveTask, count: int, first: int = 0) -> Iterator[LiveEvent]:
    """Yield some events of random users, deterministic for a task."""
    chance = random.Random(task.seed + first)  # noqa: S311 - no secret
    values = (None, None, 1.0, 2.0, 3.0, 4.0, 4.5, 5.0)
    for number in range(first, first + count):
        # A product of two uniform numbers has a long tail.
        user = int(task.users * chance.random())
        item = int(_ITEMS * chance.random() * chance.random())
        value = values[number % len(values)]
        time_ms = _START_MS + number * _STEP_MS
        position = EventPosition(_PRODUCERS[number % len(_PRODUCERS)], 1, number // len(_PRODUCERS) + 1)
        kind = "view" if value is None else "rating"
        yield LiveEvent(f"user-{user}", str(item), kind, value, time_ms, time_ms + number % 300, "", position)


async def fill(root: Path, lines: int) -> dict[str, Position]:
    """Write an archive; returns how far its producers are archived."""
    archive, producer = Archive(root), _PRODUCERS[0]
    await archive.acquire(1.0)
    try:
        for first in range(1, lines + 1, _COMMIT_LINES):
            content = CommitContent()
            events = [(seq, served(seq) if seq % 10 else click(seq)) for seq in range(first, first + _COMMIT_LINES)]
            content.folders[date_folder(events[0][1].received_at)] = [
                encode(one, producer, 1, seq) for seq, one in events
            ]
            content.progress[producer, 1] = Progress(events[-1][0], archived=len(events))
            await archive.commit(content)
        return archive.watermarks
    finally:
        await archive.close()


def rebuild(root: Path, directory: Path, marks: Mapping[str, Position], lines: int) -> float:
    """Make the state of an archive anew; returns lines per second of processor time."""
    wanted = Wanted("benchmark", marks, 0, 365, _RULES.most, tuple(sorted(DEFAULT_TYPES)))
    started_s = time.process_time()
    found = restore(root, StateStore(directory), wanted, threading.Event())
    took_s = time.process_time() - started_s
    if found.events != lines // 10:
        raise RunError(f"{found.events} events were read from the archive in {root}, not {lines // 10}.")
    return lines / took_s


def write(task: LiveTask, lines_per_s: float) -> LiveFigures:
    """Store a state."""
    store = StateStore(Path(task.directory))
    total = task.users * task.events_per_user
    manifest = StateManifest("benchmark", Position(1, 0), {}, 0, 365, _RULES.most, ())
    started_s = time.process_time()
    made_s = 0.0
    for first in range(0, total, _BATCH_EVENTS):
        before_s = time.process_time()
        batch = list(events_of(task, min(_BATCH_EVENTS, total - first), first))
        made_s += time.process_time() - before_s
        store.add(batch, _RULES)
    write_s = time.process_time() - started_s - made_s
    saves = []
    for number in range(9):
        batch = list(events_of(task, task.interval_events, total + number * task.interval_events))
        before_s = time.perf_counter()
        store.save(store.prepare(manifest, _RULES, batch, None, 1 << 40, purge=False))
        saves.append(time.perf_counter() - before_s)
    layers = len((store.manifest or manifest).layers)
    before_s = time.process_time()
    store.merge_all(_RULES)
    merge_s = time.process_time() - before_s
    store.save(manifest)
    return LiveFigures(
        write_s=write_s,
        save_s=statistics.median(saves),
        merge_s=merge_s,
        peak_bytes=_peak_bytes(),
        state_bytes=store.size_bytes,
        layers=layers,
        events=store.n_events,
        lines_per_s=lines_per_s,
    )


def read(directory: Path, users: int, readers: int) -> list[ReaderFigures]:
    """Look users up in several processes that map the same state at once."""
    argv = [sys.executable, "-m", __name__, str(directory), str(users)]
    running = [subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(readers)]
    figures = []
    try:
        looked_up = [_answer(process) for process in running]
        # All have touched their pages, and all still map them.
        memory = [_answer(process, "now\n") for process in running]
        for (first, median, p99), (pss, mapped) in zip(looked_up, memory, strict=True):
            figures.append(ReaderFigures(float(first), float(median), float(p99), int(pss), int(mapped)))
    finally:
        for process in running:
            process.kill()
            process.communicate()
    return figures


def _answer(process: "subprocess.Popen[str]", line: str = "") -> list[str]:
    if process.stdin is None or process.stdout is None:
        return []
    process.stdin.write(line)
    process.stdin.flush()
    return process.stdout.readline().split()


def rows(task: LiveTask, written: LiveFigures, readers: Sequence[ReaderFigures]) -> list[tuple[str, str]]:
    """Return the figures for a table."""
    memory_bytes = sum(reader.pss_bytes for reader in readers)
    return [
        ("layers on disk and mapped", f"{written.state_bytes / _MILLION:.1f} MB"),
        ("bytes an event", f"{written.state_bytes / written.events:.1f}"),
        (f"memory of {len(readers)} readers for it, together", f"{memory_bytes / _MILLION:.1f} MB"),
        ("storing an event, merges included", f"{written.write_s / written.events * _MILLION:.1f} µs"),
        (f"saving {task.interval_events:,} new events", f"{written.save_s * 1e3:.0f} ms"),
        ("merging everything", f"{written.merge_s:.1f} s"),
        ("lines of an archive read to make its state", f"{written.lines_per_s:,.0f}/s"),
        ("peak memory of the writer", f"{written.peak_bytes / _MILLION:.0f} MB"),
        ("opening, and the first look-up", f"{max(reader.first_us for reader in readers) / 1e3:.1f} ms"),
        ("a look-up, median", f"{max(reader.median_us for reader in readers):.0f} µs"),
        ("a look-up, 99th percentile", f"{max(reader.p99_us for reader in readers):.0f} µs"),
    ]


def _read_here(directory: Path, users: int) -> None:
    """The reader's process: look up, wait for a line, and report the memory."""
    before = _pss_bytes()
    chance = random.Random(os.getpid())  # noqa: S311 - no secret
    started_s = time.perf_counter()
    snapshot = StateSnapshot.open(directory)
    snapshot.events("user-0")
    first_us = (time.perf_counter() - started_s) * _MILLION
    took = []
    for _ in range(_LOOK_UPS):
        name = f"user-{int(users * chance.random())}"
        started_s = time.perf_counter()
        snapshot.events(name)
        took.append((time.perf_counter() - started_s) * _MILLION)
    took.sort()
    print(first_us, statistics.median(took), took[int(len(took) * 0.99)], flush=True)
    sys.stdin.readline()
    print(_pss_bytes() - before, snapshot.size_bytes, flush=True)
    # The pages of this process count for the others until it is killed.
    sys.stdin.readline()


def _pss_bytes() -> int:
    for line in Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _peak_bytes() -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


async def measure(task: LiveTask) -> LiveFigures:
    """Make a small state from an archive, and store a large one: the writer's process."""
    with tempfile.TemporaryDirectory(prefix="recollect-live-") as home:
        root = Path(home) / "archive"
        marks = await fill(root, task.archived_lines)
        lines_per_s = rebuild(root, Path(home) / "state", marks, task.archived_lines)
    return write(task, lines_per_s)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _read_here(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        measured_main(LiveTask, measure)
