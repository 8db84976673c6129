from pathlib import Path

from telemetry.batch import EventPosition, Position
from telemetry.live.feed_entry import FeedEntry, encode_entry
from telemetry.live.live_event import LiveEvent
from telemetry.live.live_feed_reader import LiveFeedReader
from telemetry.live.state_manifest import FILE_NAME, StateManifest
from telemetry.stream.memory_feed_stream import MemoryFeed, MemoryFeedStream


def entry(seq: int) -> bytes:
    """The entry of one event."""
    event = LiveEvent("42", f"i{seq}", "view", None, seq, seq, f"ev-{seq}", EventPosition("p", 1, seq))
    return encode_entry(FeedEntry([event], marks={"p": Position(1, seq)}))


def write_snapshot(directory: Path, position: Position) -> None:
    StateManifest("a", position, {}, 0, 365, 100, ()).write(directory)


class Site:
    """A feed, its writer and a reader of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.feed = MemoryFeed()
        self.writer = MemoryFeedStream(self.feed)
        self.reader = LiveFeedReader(MemoryFeedStream(self.feed), directory, patience_s=60, look_every_s=0)

    async def start(self, generation: int = 5) -> None:
        await self.writer.connect()
        await self.reader.connect()
        write_snapshot(self.directory, Position(generation, 0))
        await self.writer.begin(generation, encode_entry(FeedEntry()))
        first = await self.reader.read(0)
        assert first.snapshot is not None
        assert first.position == Position(generation, 0)
        assert (await self.reader.read(0)).entries == 1

    async def append(self, generation: int, number: int, first_kept: int = 1) -> None:
        assert await self.writer.append(Position(generation, number), entry(number), first_kept=first_kept)

    async def items(self) -> list[str]:
        return [event.item_id for event in (await self.reader.read(0)).events]


async def test_entries_are_read_once_and_in_order(tmp_path: Path) -> None:
    """With the marks up to which they lead."""
    site = Site(tmp_path)
    await site.start()
    await site.append(5, 2)
    await site.append(5, 3)
    batch = await site.reader.read(0)
    assert ([event.item_id for event in batch.events], batch.marks, batch.position) == (
        ["i2", "i3"], {"p": Position(1, 3)}, Position(5, 3)
    )  # fmt: skip
    assert await site.items() == []


async def test_a_newer_snapshot_of_the_same_generation_changes_no_position(tmp_path: Path) -> None:
    """The reader is further already, and reads no entry twice."""
    site = Site(tmp_path)
    await site.start()
    await site.append(5, 2)
    await site.append(5, 3)
    assert await site.items() == ["i2", "i3"]
    write_snapshot(tmp_path, Position(5, 2))
    batch = await site.reader.read(0)
    assert batch.snapshot is not None
    assert (batch.snapshot.position, batch.position) == (Position(5, 2), Position(5, 3))
    await site.append(5, 4)
    assert await site.items() == ["i4"]


async def test_a_gap_waits_for_a_snapshot_that_covers_it(tmp_path: Path) -> None:
    """Trimmed entries: nothing is returned before the snapshot, and then what follows it."""
    site = Site(tmp_path)
    await site.start()
    for number in (2, 3, 4, 5):
        await site.append(5, number, first_kept=4)
    assert await site.items() == []
    write_snapshot(tmp_path, Position(5, 2))
    assert (await site.reader.read(0)).snapshot is not None
    assert await site.items() == []
    write_snapshot(tmp_path, Position(5, 4))
    assert (await site.reader.read(0)).snapshot is not None
    assert await site.items() == ["i5"]


async def test_a_new_generation_begins_with_its_snapshot(tmp_path: Path) -> None:
    """Also after FLUSHALL, and when its number is smaller."""
    site = Site(tmp_path)
    await site.start()
    for generation in (6, 9, 3):
        await site.append(site.reader.position.epoch, 2)
        site.feed.flush_all()
        await site.writer.begin(generation, encode_entry(FeedEntry()))
        assert await site.items() == []
        write_snapshot(tmp_path, Position(generation, 0))
        batch = await site.reader.read(0)
        assert batch.snapshot is not None
        assert batch.position == Position(generation, 0)
        assert (await site.reader.read(0)).position == Position(generation, 1)


async def test_without_snapshots_a_gap_is_passed_over(tmp_path: Path) -> None:
    """On a machine that shares no directory with the consumer, the feed alone is followed."""
    site = Site(tmp_path)
    await site.writer.connect()
    await site.writer.begin(5, encode_entry(FeedEntry()))
    for number in (2, 3, 4):
        await site.append(5, number, first_kept=3)
    reader = LiveFeedReader(MemoryFeedStream(site.feed), tmp_path / "none", patience_s=0)
    await reader.connect()
    assert (await reader.read(0)).snapshot is not None
    assert (await reader.read(0)).events == []
    assert [event.item_id for event in (await reader.read(0)).events] == ["i3", "i4"]
    assert reader.incomplete


async def test_foreign_entries_and_a_damaged_snapshot_hold_up_nothing_that_follows(tmp_path: Path) -> None:
    """The next generation ends both."""
    site = Site(tmp_path)
    await site.start()
    site.feed.add(Position(5, 2), b"foreign", Position(5, 1))
    assert await site.items() == []
    (tmp_path / FILE_NAME).write_bytes(b"{}\n0\n")
    assert await site.items() == []
    write_snapshot(tmp_path, Position(6, 0))
    await site.writer.begin(6, encode_entry(FeedEntry()))
    assert (await site.reader.read(0)).snapshot is not None
    assert (await site.reader.read(0)).position == Position(6, 1)
