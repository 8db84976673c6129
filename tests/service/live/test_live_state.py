"""The live state of a replica: whatever the order of deliveries, the set of a user's events decides."""

from hypothesis import given
from hypothesis import strategies as st

from service.live.live_state import LiveState
from telemetry.batch import EventPosition, Position
from telemetry.live.feed_entry import ErasedUser
from telemetry.live.live_event import LiveEvent, last_events
from telemetry.live.state_watermark import applied_events, parse_watermark
from tests.support.live.live_events import MemorySnapshot, event, marks_of


def positions(state: LiveState, user_id: str = "u1") -> list[EventPosition]:
    found = state.user(user_id)
    return [] if found is None else [one.position for one in found.events]


def state_with(snapshot: MemorySnapshot | None = None, most_pending: int = 100) -> LiveState:
    state = LiveState(most_pending)
    state.load(snapshot or MemorySnapshot())
    return state


class Replica:
    """A replica's state between acceptance, feed and snapshots, and the archive that all of them follow.

    The replica is producer `own`; another one is `other`. What is archived is delivered in order, entry by entry.
    """

    def __init__(self, most_events: int) -> None:
        self.most_events = most_events
        self.state = state_with(MemorySnapshot(most_events=most_events))
        self.archive: list[LiveEvent] = []
        self.accepted: list[LiveEvent] = []
        self.entries: list[list[LiveEvent]] = []
        self.delivered = 0

    def accept(self, events: list[LiveEvent]) -> None:
        self.accepted += events
        self.state.accept(events)

    def commit(self, events: list[LiveEvent]) -> None:
        self.archive += events
        self.entries.append(events)

    def commit_own(self) -> None:
        self.commit([one for one in self.accepted if one not in self.archive])

    def deliver(self) -> None:
        if self.delivered < len(self.entries):
            entry = self.entries[self.delivered]
            self.delivered += 1
            self.state.apply(Position(1, self.delivered), entry, marks=marks_of(entry))

    def load(self) -> None:
        held = [one for entry in self.entries for one in entry]
        self.delivered = len(self.entries)
        self.state.load(MemorySnapshot(Position(1, self.delivered), held, marks_of(held), most_events=self.most_events))
        while self.state.drop_covered():
            pass

    def expected(self) -> list[LiveEvent]:
        """Return the last of what was delivered or accepted, from a list and a sort."""
        known = [one for entry in self.entries[: self.delivered] for one in entry] + self.accepted
        return last_events(known, self.most_events)


TIMES = st.lists(st.integers(0, 9), min_size=1, max_size=3)
STEPS = st.lists(
    st.tuples(st.sampled_from(["accept", "other"]), TIMES)
    | st.tuples(st.sampled_from(["commit_own", "deliver", "deliver", "load"]), st.just([])),
    max_size=25,
)


@given(STEPS, st.integers(1, 6))
def test_the_set_of_events_decides(steps: list[tuple[str, list[int]]], most_events: int) -> None:
    """After any history the state is the last of the known set, and its watermark gives the same events again."""
    replica, own, other = Replica(most_events), 0, 0
    for name, times in steps:
        if name == "accept":
            replica.accept([event(own + at, time, producer="own") for at, time in enumerate(times, 1)])
            own += len(times)
        elif name == "other":
            replica.commit([event(other + at, time, producer="other") for at, time in enumerate(times, 1)])
            other += len(times)
        else:
            getattr(replica, name)()
        found = replica.state.user("u1")
        expected = [one.position for one in replica.expected()]
        assert positions(replica.state) == expected
        if found is not None:
            archived = [*replica.archive, *(one for one in replica.accepted if one not in replica.archive)]
            again = applied_events(archived, parse_watermark(found.watermark), most_events)
            assert [one.position for one in again] == expected
    replica.commit_own()
    while replica.delivered < len(replica.entries):
        replica.deliver()
    assert replica.state.pending_events == 0
    replica.load()
    assert replica.state.recent_events == 0
    assert positions(replica.state) == [one.position for one in replica.expected()]


def test_a_delivery_that_comes_twice_counts_once() -> None:
    """As after a new connection."""
    state = state_with()
    for _ in range(2):
        state.apply(Position(1, 1), [event(1), event(2)])
    assert positions(state) == [("p", 1, 1), ("p", 1, 2)]


def test_a_retry_on_another_replica_counts_once() -> None:
    """The archive keeps the copy that came first; the other one leaves the overlay, and the watermark follows."""
    state = state_with()
    accepted = event(9, producer="own", event_id="same-0001", item_id="i1")
    state.accept([accepted])
    found = state.user("u1")
    assert found is not None
    assert found.watermark == "+same-0001@1000@own:1-9"
    archived = event(3, 990, producer="other", event_id="same-0001", item_id="i1")
    (again,) = applied_events([archived], parse_watermark(found.watermark), 5)
    assert again == accepted._replace(received_ms=990)
    state.apply(Position(1, 1), [archived])
    assert positions(state) == [("other", 1, 3)]
    state.apply(Position(1, 2), [])
    assert state.pending_events == 0
    late = state_with()
    late.apply(Position(1, 1), [archived])
    late.accept([accepted])
    assert positions(late) == [("other", 1, 3)]


def test_a_mark_ends_what_the_archive_did_not_keep() -> None:
    """A duplicate of an event that the snapshot holds is never delivered, and the feed passes its position."""
    state = state_with(MemorySnapshot(held=[event(1, producer="other")]))
    state.accept([event(5, producer="own", event_id="x-000001", item_id="i1")])
    assert len(positions(state)) == 2
    state.apply(Position(1, 1), [], marks={"own": Position(1, 4)})
    assert len(positions(state)) == 2
    state.apply(Position(1, 2), [], marks={"own": Position(1, 6)})
    assert positions(state) == [("other", 1, 1)]


def test_another_generation_replaces_what_the_feed_delivered() -> None:
    """What this replica accepted stays."""
    state = state_with()
    state.apply(Position(1, 1), [event(1), event(2)])
    state.accept([event(1, 2_000, producer="own")])
    state.load(MemorySnapshot(Position(2, 0), [event(1)], {"p": Position(1, 1)}))
    assert positions(state) == [("p", 1, 1), ("own", 1, 1)]
    assert state.position == Position(2, 0)


def test_events_before_the_horizon_are_in_no_state() -> None:
    """Neither those of the snapshot nor those of the feed nor the replica's own."""
    state = state_with(MemorySnapshot(held=[event(1, 900), event(2, 1_100)], since_ms=1_000))
    state.apply(Position(1, 1), [event(3, 999), event(4, 1_000)])
    state.accept([event(1, 5, producer="own")])
    assert positions(state) == [("p", 1, 4), ("p", 1, 2)]
    found = state.user("u1")
    assert found is not None
    assert found.watermark == "+event-p-4@1000@p:1-4+@1100@p:1-2~1000"
    state.apply(Position(1, 2), [], marks={"p": Position(1, 4)})
    found = state.user("u1")
    assert found is not None
    assert found.watermark == "p:1-4~1000"


def test_an_erasure_reaches_every_source() -> None:
    """Until a snapshot is without the user; events received later count, whenever they come."""
    held = [event(1, received_ms=100)]
    state = state_with(MemorySnapshot(held=held))
    state.apply(Position(1, 1), [event(2, received_ms=200)])
    state.accept([event(1, producer="own", received_ms=300), event(2, producer="own", received_ms=401)])
    state.erase(ErasedUser("u1", 400))
    assert positions(state) == [("own", 1, 2)]
    state.apply(Position(1, 2), [event(3, received_ms=390)], [ErasedUser("u1", 400)])
    assert positions(state) == [("own", 1, 2)]
    state.load(MemorySnapshot(Position(1, 1), held))
    assert positions(state) == [("own", 1, 2)]
    state.load(MemorySnapshot(Position(1, 2), []))
    assert positions(state) == [("own", 1, 2)]


def test_the_overlay_is_bounded() -> None:
    """The oldest events leave; the feed brings them back."""
    state = state_with(most_pending=3)
    for seq in range(1, 6):
        state.accept([event(seq, producer="own", user_id=f"u{seq % 2}")])
    assert state.pending_events == 3
    assert positions(state, "u1") == [("own", 1, 3), ("own", 1, 5)]
    assert positions(state, "u0") == [("own", 1, 4)]
    state.apply(Position(1, 1), [event(1, producer="own", user_id="u1")])
    assert positions(state, "u1") == [("own", 1, 1), ("own", 1, 3), ("own", 1, 5)]


def test_what_the_feed_has_delivered_is_pending_no_more() -> None:
    """Whatever is before it in the overlay, it is not counted, and its room is free."""
    state = state_with(most_pending=3)
    state.accept([event(seq, producer="own", user_id=f"u{seq}") for seq in (1, 2, 3)])
    state.apply(Position(1, 1), [event(2, producer="own", user_id="u2")])
    assert state.pending_events == 2
    state.accept([event(4, producer="own", user_id="u4")])
    assert state.pending_events == 3
    assert positions(state, "u1") == [("own", 1, 1)]
    state.erase(ErasedUser("u3", 10**15))
    assert state.pending_events == 2
    state.apply(Position(1, 2), [], marks={"own": Position(1, 3)})
    assert state.pending_events == 1
    assert positions(state, "u4") == [("own", 1, 4)]


def test_pending_events_of_one_user_are_bounded() -> None:
    """Beyond 1,000 the oldest leave, and are not counted."""
    state = state_with(MemorySnapshot(most_events=2_000), most_pending=5_000)
    state.accept([event(seq, producer="own") for seq in range(1, 1_004)])
    assert state.pending_events == 1_000
    assert positions(state)[0] == ("own", 1, 4)


def test_before_any_snapshot_a_user_has_as_many_events_as_the_setting_says() -> None:
    """Also without one, as on an installation that has just started."""
    state = LiveState(100, most_events=2)
    state.apply(Position(1, 1), [event(seq, seq) for seq in range(1, 6)])
    assert positions(state) == [("p", 1, 4), ("p", 1, 5)]


def test_another_identity_of_the_producer_ends_the_old_numbers() -> None:
    """They were given anew, and no mark passes the old ones."""
    state = state_with()
    state.accept([event(7, producer="own")])
    state.accept([event(1, producer="own", position=EventPosition("own", 2, 1))])
    assert positions(state) == [("own", 2, 1)]
    state.apply(Position(1, 1), [], marks={"own": Position(2, 1)})
    assert state.pending_events == 0


def test_memory_of_one_user_is_bounded() -> None:
    """A user with any number of events keeps the last ones, and the snapshot ends the rest."""
    state = state_with()
    for seq in range(1, 1_000):
        state.apply(Position(1, seq), [event(seq, seq)])
    assert positions(state) == [("p", 1, seq) for seq in range(995, 1_000)]
    state.load(MemorySnapshot(Position(1, 990), [event(seq, seq) for seq in range(1, 991)]))
    while state.drop_covered():
        pass
    assert state.recent_events == 9
    assert positions(state) == [("p", 1, seq) for seq in range(995, 1_000)]


def test_each_change_is_announced() -> None:
    """With the users concerned, or with None for all."""
    state = state_with()
    changed: list[str | None] = []
    state.on_change(changed.append)
    state.accept([event(1, producer="own")])
    state.apply(Position(1, 1), [event(1, user_id="u2")], [ErasedUser("u3", 5)], {"own": Position(1, 1)})
    state.load(MemorySnapshot(Position(1, 1)))
    assert changed == ["u1", "u2", "u3", "u1"]
    state.load(MemorySnapshot(Position(1, 9)))
    assert changed[4:] == [None]
