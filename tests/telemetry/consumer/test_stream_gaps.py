import asyncio
from collections.abc import Sequence

import pytest

from telemetry.batch import Batch, Position
from telemetry.consumer.stream_gaps import BROKEN_RESENDS, UNLINKED_RESENDS, StreamGaps, may_pass_gap
from telemetry.consumer.subscription import Subscription
from telemetry.counters import ConsumerCounters
from telemetry.errors import StreamRefusedError
from telemetry.notes import ConsumerNote, StreamGapFound, StreamGapKept
from telemetry.settings import ConsumerSettings
from telemetry.stream.memory_stream import MemoryServer, MemoryStream

AT = Position(1, 4)


def test_a_stream_is_removed_once_its_producer_was_heard_of() -> None:
    """Not before: what it still holds could not be sent again."""
    gaps = StreamGaps(60)
    assert gaps.found("p", AT, 1.0, 0)
    assert gaps.open == {"p"}
    assert gaps.due({"p": 1.0}, full=False, now_s=1) == []
    assert gaps.due({}, full=False, now_s=1) == []
    assert gaps.due({"p": 2.0}, full=False, now_s=1) == ["p"]
    gaps.removed(["p"])
    assert (gaps.open, gaps.asked("p", AT), gaps.asked("p", Position(1, 5))) == (frozenset(), 1, 0)
    assert not gaps.found("p", AT, 2.0, 1)
    gaps.due({"p": 3.0}, full=False, now_s=2)
    gaps.removed(["p"])
    assert gaps.asked("p", AT) == 2
    assert gaps.found("p", Position(1, 9), 3.0, 3)


def test_of_a_producer_that_says_what_its_batches_follow_nothing_else_is_believed() -> None:
    """Another client that writes in its stream may do so again and again."""
    gaps = StreamGaps(60)
    gaps.linked(["p"])
    for shakes in range(2, 9):
        gaps.found("p", AT, shakes - 1, 0)
        assert gaps.due({"p": shakes}, full=False, now_s=1) == ["p"]
        gaps.removed(["p"])
    assert gaps.asked("p", AT) == 0
    gaps.found("p", AT, 1.0, 0)
    gaps.due({"p": 1.0}, full=False, now_s=60)
    assert gaps.is_written_off("p", AT)


def test_a_full_redis_is_emptied_without_waiting_for_a_sign_of_life() -> None:
    """Handshakes leave no trace there."""
    gaps = StreamGaps(60)
    gaps.found("p", AT, 1.0, 0)
    assert gaps.due({"p": 1.0}, full=True, now_s=1) == ["p"]


def test_a_gap_that_nobody_fills_is_written_off_in_the_end() -> None:
    """Only for the place where it is, and only if nothing was heard of the producer."""
    gaps = StreamGaps(60)
    gaps.found("p", AT, 1.0, 100)
    assert gaps.due({"p": 1.0}, full=False, now_s=159) == []
    assert gaps.open == {"p"}
    assert gaps.due({"p": 1.0}, full=False, now_s=160) == []
    assert gaps.open == frozenset()
    assert gaps.is_written_off("p", AT)
    assert not gaps.is_written_off("p", Position(1, 5))
    assert may_pass_gap(gaps.asked("p", AT), AT, Position(1, 9), whole=True)


@pytest.mark.parametrize(
    ("asked", "after", "whole", "expected"),
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
def test_what_is_believed_behind_a_break(asked: int, after: Position | None, whole: bool, expected: bool) -> None:
    """The producer's word at once; what says nothing after it came again."""
    assert may_pass_gap(asked, AT, after, whole=whole) is expected


class Guarded(MemoryStream):
    """A stream whose user may not remove keys."""

    allowed = False

    async def remove_streams(self, producers: Sequence[str]) -> None:
        if not self.allowed:
            raise StreamRefusedError("Redis refused: this user has no permissions to run the 'unlink' command")
        await super().remove_streams(producers)


async def test_without_the_right_to_remove_a_stream_it_is_kept_and_the_others_go_on() -> None:
    """It is told once; as soon as the right is there, the stream is begun anew."""
    server = MemoryServer()
    stream = Guarded(server)
    notes: list[ConsumerNote] = []
    counters = ConsumerCounters()
    subscription = Subscription(stream, ConsumerSettings(), counters, notes.append)
    await stream.connect()
    for producer in ("p", "q"):
        await stream.handshake(producer, 1.0)
        await stream.append(producer, Batch(1, 1, [b"{}\n"]), create=True)
    await subscription.look({})
    assert (subscription.joined, subscription.recheck) == ({"p", "q"}, {"p", "q"})
    subscription.recheck.clear()
    server.streams["p"].entries.clear()
    await subscription.look({})
    assert (subscription.joined, counters.gaps) == ({"q"}, 1)
    await stream.handshake("p", 2.0)
    for _ in range(3):
        await subscription.look({})
    assert [type(note) for note in notes] == [StreamGapFound, StreamGapKept]
    assert set(server.streams) == {"p", "q"}
    stream.allowed = True
    await subscription.look({})
    assert (set(server.streams), subscription.joined) == ({"q"}, {"q"})
    await stream.append("p", Batch(1, 1, [b"{}\n"]), create=True)
    await subscription.look({})
    assert subscription.joined == {"p", "q"}


async def test_what_was_written_off_at_the_end_of_a_stream_is_not_found_again() -> None:
    """The stream is read on: its producer may come back with other numbers."""
    server = MemoryServer()
    stream = MemoryStream(server)
    subscription = Subscription(stream, ConsumerSettings(gap_patience_s=0.01), ConsumerCounters(), None)
    await stream.connect()
    await stream.handshake("p", 1.0)
    await stream.append("p", Batch(1, 1, [b"{}\n"]), create=True)
    server.streams["p"].entries.clear()
    await subscription.look({})
    subscription.recheck.clear()
    await subscription.look({})
    assert subscription.joined == set()
    async with asyncio.timeout(5):
        while not subscription.joined:
            await subscription.look({})
    subscription.recheck.clear()
    await subscription.look({})
    assert subscription.joined == {"p"}
