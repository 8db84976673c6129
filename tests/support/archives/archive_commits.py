"""Archives for tests, written by the real archive."""

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path

from telemetry.archive.archive import Archive
from telemetry.archive.archive_files import DEAD_LETTERS, date_folder
from telemetry.archive.dead_letters import DeadLetter, encode_letter
from telemetry.catalogue.commit import CommitContent, Progress, RemovalReason, RemovedRun
from telemetry.events import Event, encode

PRODUCER = "0193aaaa-bbbb-7ccc-8ddd-00000000aaaa"


def line(event: Event, seq: int, *, producer: str = PRODUCER, epoch: int = 1) -> bytes:
    """Encode an event at a position."""
    return encode(event, producer, epoch, seq)


def letter(seq: int, *, producer: str = PRODUCER, epoch: int = 1, data: bytes = b"{torn") -> bytes:
    """Return the line of the dead letter of one number."""
    return encode_letter(
        DeadLetter(
            f"letter-{producer}-{epoch}-{seq}",
            "2026-11-21T01:02:04.000Z",
            producer,
            f"{epoch}-{seq}",
            seq,
            seq,
            "the line is not JSON",
            1,
            data,
        )
    )


def addition(
    events: Iterable[tuple[int, Event]],
    removed: Iterable[tuple[int, RemovalReason]] = (),
    *,
    producer: str = PRODUCER,
    epoch: int = 1,
) -> CommitContent:
    """Return what a consumer would commit of events by number, and of numbers that are not archived."""
    added = CommitContent()
    progress = added.progress[producer, epoch] = Progress(0)
    for seq, event in events:
        added.folders.setdefault(date_folder(event.received_at), []).append(
            line(event, seq, producer=producer, epoch=epoch)
        )
        progress.archived += 1
        progress.seq = max(progress.seq, seq)
    for seq, why in removed:
        added.removed.append(RemovedRun(producer, epoch, seq, seq, why, None))
        setattr(progress, why, getattr(progress, why) + 1)
        progress.seq = max(progress.seq, seq)
        if why == "dead_lettered":
            added.folders.setdefault(DEAD_LETTERS, []).append(letter(seq, producer=producer, epoch=epoch))
    return added


def commit(root: Path, *additions: CommitContent) -> None:
    """Acquire the lease, commit and release it; the next commit seals every file."""

    async def work() -> None:
        archive = Archive(root)
        try:
            await archive.acquire(1.0)
            for added in additions:
                await archive.commit(added)
        finally:
            await archive.close()

    asyncio.run(work())


def seal(root: Path) -> None:
    """Seal every file, by acquiring the lease once more."""
    commit(root)


def lines_of(root: Path, pattern: str = "date=*/*.jsonl") -> Sequence[bytes]:
    """Read raw lines, committed or not."""
    return [text for path in sorted(root.glob(pattern)) for text in path.read_bytes().splitlines(keepends=True)]
