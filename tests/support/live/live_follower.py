"""A follower of live state as a replica is one: the snapshot, and what the feed adds to it."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from telemetry.batch import Position
from telemetry.events import Record
from telemetry.live.item_table import ItemTable
from telemetry.live.live_event import LiveEvent, last_events
from telemetry.live.live_feed_reader import FeedBatch, LiveFeedReader
from telemetry.live.state_snapshot import StateSnapshot
from telemetry.stream.feed_stream import FeedStream


class LiveFollower:
    """Keeps the state of all users, and the marks that it has reached."""

    def __init__(self, stream: FeedStream, directory: Path, *, patience_s: float = 60.0) -> None:
        self.reader = LiveFeedReader(stream, directory, patience_s=patience_s, look_every_s=0)
        self.snapshot = StateSnapshot.empty(None)
        self.marks: dict[str, Position] = {}
        self.items = ItemTable()
        self._added: dict[str, list[LiveEvent]] = defaultdict(list)
        self._erased: dict[str, int] = {}

    async def read(self, block_ms: int = 0) -> FeedBatch:
        """Read once, and apply what was read."""
        batch = await self.reader.read(block_ms)
        if batch.snapshot is not None:
            if batch.snapshot.generation != self.snapshot.generation:
                self._added.clear()
                self._erased.clear()
                self.items = ItemTable()
                self.marks = {}
            self.snapshot = batch.snapshot
            self._apply_items(batch.snapshot.item_table().records())
        for event in batch.events:
            self._added[event.user_id].append(event)
        for user_id, requested_ms in batch.erased:
            self._erased[user_id] = max(requested_ms, self._erased.get(user_id, requested_ms))
        self._apply_items(batch.item_changes)
        for producer, mark in batch.marks.items():
            self.marks[producer] = max(mark, self.marks.get(producer, mark))
        return batch

    def state(self, users: Iterable[str]) -> dict[str, list[LiveEvent]]:
        """Return the events of those users that have some, without their ids."""
        found = {}
        for user_id in users:
            added = [event._replace(event_id="") for event in self._added.get(user_id, ())]
            erased_ms = self._erased.get(user_id, -1)
            events = [
                event
                for event in (*self.snapshot.events(user_id), *added)
                if event.time_ms >= self.snapshot.since_ms and event.received_ms > erased_ms
            ]
            if kept := last_events(events, self.snapshot.most_events):
                found[user_id] = kept
        return found

    def _apply_items(self, records: Iterable[Record]) -> None:
        for record in records:
            self.items.apply(record)
