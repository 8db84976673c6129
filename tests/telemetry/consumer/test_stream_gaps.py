import asyncio
from collections.abc import Sequence

import pytest

from telemetry.batch import Batch, Position
from telemetry.consumer.context import ConsumerContext
from telemetry.consumer.stream_gaps import BROKEN_RESENDS, UNLINKED_RESENDS, StreamGaps, may_pass_gap
from telemetry.consumer.subscription import Subscription
from telemetry.errors import StreamRefusedError
from telemetry.notes import Note, StreamGapFound, StreamGapKept
from telemetry.settings import ConsumerSettings
from telemetry.stream.memory_stream import MemoryServer, MemoryStream

AT = Position(1, 4)


def test_a_stream_is_removed_after_a_handshake_of_its_producer() -> None:
    """Not before: the log to send from may be gone."""
    gaps = StreamGaps(60)
    assert gaps.add("p", AT, 1.0, 0)
    assert gaps.open == {"p"}
    assert gaps.streams_to_remove({"p": 1.0}, full=False, now_s=1) == []
    assert gaps.streams_to_remove({}, full=False, now_s=1) == []
    assert gaps.streams_to_remove({"p": 2.0}, full=False, now_s=1) == ["p"]
    gaps.streams_removed(["p"])
    assert (gaps.open, gaps.resends("p", AT), gaps.resends("p", Position(1, 5))) == (frozenset(), 1, 0)
    assert not gaps.add("p", AT, 2.0, 1)
    gaps.streams_to_remove({"p": 3.0}, full=False, now_s=2)
    gaps.streams_removed(["p"])
    assert gaps.resends("p", AT) == 2
    assert gaps.add("p", Position(1, 9), 3.0, 3)


def test_unlinked_entries_of_a_producer_with_linked_batches_are_never_passed() -> None:
    """Another client that writes in its stream may do so again and again."""
    gaps = StreamGaps(60)
    gaps.mark_linked(["p"])
    for shakes in range(2, 9):
        gaps.add("p", AT, shakes - 1, 0)
        assert gaps.streams_to_remove({"p": shakes}, full=False, now_s=1) == ["p"]
        gaps.streams_removed(["p"])
    assert gaps.resends("p", AT) == 0
    gaps.add("p", AT, 1.0, 0)
    gaps.streams_to_remove({"p": 1.0}, full=False, now_s=60)
    assert gaps.is_written_off("p", AT)


def test_a_full_redis_is_emptied_without_waiting_for_a_handshake() -> None:
    """Handshakes leave no trace there."""
    gaps = StreamGaps(60)
    gaps.add("p", AT, 1.0, 0)
    assert gaps.streams_to_remove({"p": 1.0}, full=True, now_s=1) == ["p"]


def test_a_gap_that_is_never_filled_is_written_off() -> None:
    """Only at its watermark, and only without a handshake of the producer."""
    gaps = StreamGaps(60)
    gaps.add("p", AT, 1.0, 100)
    assert gaps.streams_to_remove({"p": 1.0}, full=False, now_s=159) == []
    assert gaps.open == {"p"}
    assert gaps.streams_to_remove({"p": 1.0}, full=False, now_s=160) == []
    assert gaps.open == frozenset()
    assert gaps.is_written_off("p", AT)
    assert not gaps.is_written_off("p", Position(1, 5))
    assert may_pass_gap(gaps.resends("p", AT), AT, Position(1, 9), is_batch=True)


@pytest.mark.parametrize(
    ("resends", "after", "is_batch", "expected"),
    [
        (0, AT, True, True),
        (0, Position(1, 1), True, True),
        (99, Position(1, 5), True, False),
        (UNLINKED_RESENDS - 1, None, True, False),
        (UNLINKED_RESENDS, None, True, True),
        (BROKEN_RESENDS - 1, None, False, False),
        (BROKEN_RESENDS, None, False, True),
    ],
)
def test_what_may_pass_a_break(resends: int, after: Position | None, is_batch: bool, expected: bool) -> None:
    """A named predecessor at once; an entry without one after it came again."""
    assert may_pass_gap(resends, AT, after, is_batch=is_batch) is expected


class Guarded(MemoryStream):
    """A stream whose user may not remove keys."""

    allowed = False

    async def remove_streams(self, producers: Sequence[str]) -> None:
        if not self.allowed:
            raise StreamRefusedError("Redis refused: this user has no permissions to run the 'unlink' command")
        await super().remove_streams(producers)


async def test_without_the_right_to_remove_a_stream_it_is_kept_and_the_others_go_on() -> None:
    """It is reported once; as soon as the user has the right, the stream is begun again."""
    server = MemoryServer()
    stream = Guarded(server)
    notes: list[Note] = []
    context = ConsumerContext(ConsumerSettings(), notes.append)
    subscription = Subscription(stream, context)
    await stream.connect()
    for producer in ("p", "q"):
        await stream.handshake(producer, 1.0)
        await stream.append(producer, Batch(1, 1, [b"{}\n"]), create=True)
    await subscription.refresh({})
    assert (subscription.joined, subscription.recheck) == ({"p", "q"}, {"p", "q"})
    subscription.recheck.clear()
    server.streams["p"].entries.clear()
    await subscription.refresh({})
    assert (subscription.joined, context.counters.gaps) == ({"q"}, 1)
    await stream.handshake("p", 2.0)
    for _ in range(3):
        await subscription.refresh({})
    assert [type(note) for note in notes] == [StreamGapFound, StreamGapKept]
    assert set(server.streams) == {"p", "q"}
    stream.allowed = True
    await subscription.refresh({})
    assert (set(server.streams), subscription.joined) == ({"q"}, {"q"})
    await stream.append("p", Batch(1, 1, [b"{}\n"]), create=True)
    await subscription.refresh({})
    assert subscription.joined == {"p", "q"}


async def test_a_gap_written_off_at_the_end_of_a_stream_is_not_found_again() -> None:
    """The stream is read on: its producer may come back with other numbers."""
    server = MemoryServer()
    stream = MemoryStream(server)
    subscription = Subscription(stream, ConsumerContext(ConsumerSettings(gap_patience_s=0.01)))
    await stream.connect()
    await stream.handshake("p", 1.0)
    await stream.append("p", Batch(1, 1, [b"{}\n"]), create=True)
    server.streams["p"].entries.clear()
    await subscription.refresh({})
    subscription.recheck.clear()
    await subscription.refresh({})
    assert subscription.joined == set()
    async with asyncio.timeout(5):
        while not subscription.joined:
            await subscription.refresh({})
    subscription.recheck.clear()
    await subscription.refresh({})
    assert subscription.joined == {"p"}
