"""Follows the feed of live state from the snapshot on.

Invariant: applied to the last snapshot that it returned, the batches returned since then give the state of the archive
up to `marks`, whatever Redis lost. Where entries are missing, a snapshot with them is returned first, and until then
nothing is. On a machine that shares no directory with the consumer there is none: missing entries are passed over
after a while, and `incomplete` says so. A disk that hangs delays nothing but new snapshots.
"""

import asyncio
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from telemetry.batch import Position
from telemetry.daemon_thread import run_in_daemon_thread
from telemetry.errors import BadBatchError, StateError
from telemetry.events import Record
from telemetry.live.feed_entry import ErasedUser, FeedEntry, decode_entry
from telemetry.live.live_event import LiveEvent
from telemetry.live.state_manifest import Stamp, stamp_of
from telemetry.live.state_snapshot import StateSnapshot
from telemetry.stream.feed_stream import FeedStream

_MAX_ENTRIES: Final = 100
_RETRY_S: Final = 0.05
# How often the directory is looked at, and how long a look may take before the feed is read meanwhile.
_LOOK_EVERY_S: Final = 0.2
_LOOK_S: Final = 0.05
# A consumer that begins a generation has written its snapshot before.
_PATIENCE_S: Final = 5.0
_START: Final = Position(0, 0)


@dataclass(slots=True)
class FeedBatch:
    """What a read found: take the snapshot first, then the events, then the erasures.

    Attributes:
        snapshot: Replaces everything if its generation is new, and otherwise only what came up to its position.
        position: The last feed entry that was read.
        marks: By producer: the position up to which its events are archived.
        entries: How many feed entries there were, heartbeats included.
        waits: Whether entries are missing, and a snapshot with them is waited for.
    """

    snapshot: StateSnapshot | None = None
    events: list[LiveEvent] = field(default_factory=list)
    erased: list[ErasedUser] = field(default_factory=list)
    item_changes: list[Record] = field(default_factory=list)
    marks: dict[str, Position] = field(default_factory=dict)
    position: Position = _START
    entries: int = 0
    waits: bool = False

    def add(self, entry: FeedEntry) -> None:
        """Add the content of the next entry."""
        self.events += entry.events
        self.erased += entry.erased
        self.item_changes += entry.item_changes()
        self.marks.update(entry.marks)
        self.entries += 1


class LiveFeedReader:
    """Follows one feed.

    Args:
        directory: Of the state snapshot.
        patience_s: How long missing entries are waited for.
        look_every_s: How often the directory is looked at for a new snapshot.

    Attributes:
        position: The last feed entry that was read.
        incomplete: Whether entries were passed over since the last snapshot.
    """

    def __init__(
        self,
        stream: FeedStream,
        directory: Path,
        *,
        patience_s: float = _PATIENCE_S,
        look_every_s: float = _LOOK_EVERY_S,
    ) -> None:
        self._stream = stream
        self._directory = directory
        self._patience_s = patience_s
        self._look_every_s = look_every_s
        self._snapshot: StateSnapshot | None = None
        # A look at the directory that is under way.
        self._look: asyncio.Future[StateSnapshot | None] | None = None
        self._next_look_s = 0.0
        self._stuck_since_s: float | None = None
        self.position = _START
        self.incomplete = False

    async def connect(self) -> None:
        """Connect anew; raises StreamError."""
        await self._stream.connect()

    async def close(self) -> None:
        """Close the connection; never raises."""
        await self._stream.close()

    async def read(self, block_ms: int = 1000) -> FeedBatch:
        """Return what is new, waiting for it up to `block_ms`; the first call returns a snapshot.

        Raises:
            StreamError: Redis cannot be used now; connect again.
        """
        snapshot = await self._new_snapshot()
        if snapshot is not None:
            return self._taken(snapshot)
        found = await self._stream.read(self.position, max_entries=_MAX_ENTRIES, block_ms=block_ms)
        batch = FeedBatch()
        for position, data in found:
            entry = _decoded(data)
            if entry is None or position != Position(self.position.epoch, self.position.seq + 1):
                if batch.entries == 0:
                    await self._missing(position, readable=entry is not None)
                    batch.waits = True
                break
            self.position = position
            self._stuck_since_s = None
            batch.add(entry)
        batch.position = self.position
        return batch

    async def _new_snapshot(self) -> StateSnapshot | None:
        """Return a snapshot that was written since the last one; only the first call waits for the disk."""
        if self._look is None:
            if self._snapshot is not None and time.monotonic() < self._next_look_s:
                return None
            stamp = None if self._snapshot is None else self._snapshot.stamp
            look = partial(_open_if_new, self._directory, stamp, is_first=self._snapshot is None)
            self._look = asyncio.ensure_future(run_in_daemon_thread(look, "state-snapshot"))
            # Most looks find nothing, and take microseconds.
            await asyncio.wait([self._look], timeout=None if self._snapshot is None else _LOOK_S)
        if not self._look.done():
            return None
        look_over, self._look = self._look, None
        self._next_look_s = time.monotonic() + (self._look_every_s if self._stuck_since_s is None else 0.0)
        return look_over.result()

    def _taken(self, snapshot: StateSnapshot) -> FeedBatch:
        is_continued = self._snapshot is not None and snapshot.generation == self.position.epoch
        self._snapshot = snapshot
        if not (is_continued and snapshot.position <= self.position):
            self.position = snapshot.position
            self.incomplete = False
            self._stuck_since_s = None
        return FeedBatch(snapshot=snapshot, marks=dict(snapshot.marks), position=self.position)

    async def _missing(self, first: Position, *, readable: bool) -> None:
        """Wait for a snapshot that reaches the first entry that is there, or pass the missing ones over."""
        now_s = time.monotonic()
        if self._stuck_since_s is None:
            self._stuck_since_s = now_s
        if now_s - self._stuck_since_s >= self._patience_s:
            self.position = first if not readable else Position(first.epoch, max(first.seq - 1, 0))
            self._stuck_since_s = None
            self.incomplete = True
            return
        await asyncio.sleep(_RETRY_S)


def _decoded(data: bytes) -> FeedEntry | None:
    try:
        return decode_entry(data)
    except BadBatchError:
        return None


def _open_if_new(directory: Path, stamp: Stamp | None, *, is_first: bool) -> StateSnapshot | None:
    """Open the snapshot of a directory if it is another one than that with the stamp; the first is opened anyway."""
    now = stamp_of(directory)
    if now == stamp and not is_first:
        return None
    try:
        return StateSnapshot.open(directory)
    except StateError:
        # A damaged one is replaced when the consumer's lease begins; until then the last one is better.
        return StateSnapshot.empty(now) if is_first else None
