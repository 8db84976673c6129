"""Training interactions and live events as one history, against a slow reference."""

from collections.abc import Callable
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from service.live.live_state import LiveState
from service.live.live_users import LiveUsers
from service.live.merged_history import merged_history
from service.models.fold_in.settings import FoldIn
from service.models.history.event_values import EVENT_RANKS, EVENT_VALUES
from service.models.history.user_history import EVENT_TYPES
from service.models.history.weights import HistoryWeights
from service.models.snapshot import ModelSnapshot
from service.training.algorithms.popularity import PopularityConfig
from service.training.assembly import assemble
from telemetry.batch import Position
from tests.support.interactions import rated
from tests.support.live.live_events import MemorySnapshot, event

SEEN = frozenset({"rating", "purchase", "dismiss"})
TRAINED = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4)), max_size=6, unique_by=lambda pair: pair[0])
LIVE = st.lists(
    st.tuples(st.integers(0, 7), st.integers(0, 6), st.sampled_from([*EVENT_TYPES, "impression"]), st.integers(0, 7)),
    max_size=8,
)


def by_hand(
    trained: list[tuple[int, int]], live: list[tuple[int, int, str, int]], *, timed: bool
) -> tuple[list[tuple[int, float, str]], list[int]]:
    """Return item, value and type of each interaction that stays, in order, and the seen items."""
    interactions = [(time, item, float(1 + item % 5), "rating") for item, time in trained]
    if timed:
        interactions.sort(key=lambda one: one[0])
    for item, time, type_, rating in live:
        if item >= 6 or type_ == "impression":
            continue
        value = EVENT_VALUES[type_]
        interactions.append((time, item, min(max(float(rating) if value is None else value, 1.0), 5.0), type_))
    if timed:
        interactions.sort(key=lambda one: one[0])
    stays: dict[int, int] = {}
    for at, (_, item, _, type_) in enumerate(interactions):
        if item not in stays or EVENT_RANKS[type_] >= EVENT_RANKS[interactions[stays[item]][3]]:
            stays[item] = at
    seen = {item for item, _ in trained} | {item for item, _, type_, _ in live if item < 6 and type_ in SEEN}
    return [interactions[at][1:] for at in sorted(stays.values())], sorted(seen)


@given(TRAINED, LIVE, st.booleans())
def test_any_history_is_the_one_that_a_training_would_see(
    trained: list[tuple[int, int]], live: list[tuple[int, int, str, int]], timed: bool
) -> None:
    """One interaction of each item, in the order of time; unknown items and impressions say nothing."""
    pairs = [(0, item, 1.0 + item % 5) for item, _ in trained] + [(1, item, 1.0 + item % 5) for item in range(6)]
    times = [time for _, time in trained] + [0] * 6
    data = rated(pairs, times=times if timed else None)
    snapshot = assemble(data, "popularity", PopularityConfig())
    user_row = snapshot.users.row_of.get(data.users.id_of[0]) if trained else None
    names = {item: snapshot.items.id_of[data.item_rows[at]] for at, (_, item, _) in enumerate(pairs)}
    live = live if timed else [(item, 0, type_, rating) for item, _, type_, rating in live]
    live.sort(key=lambda one: one[1])
    events = [
        event(seq, 1_000 * time, item_id=names.get(item, "unknown"), type=type_, value=float(rating))
        for seq, (item, time, type_, rating) in enumerate(live, 1)
    ]
    merged = merged_history(snapshot, user_row, events, SEEN)
    expected, seen = by_hand(trained, live, timed=timed)
    got = [
        (snapshot.items.id_of[row], value, EVENT_TYPES[type_])
        for row, value, type_ in zip(merged.history.rows, merged.history.values, merged.history.types, strict=True)
    ]
    assert got == [(names[item], value, type_) for item, value, type_ in expected]
    assert merged.seen.tolist() == sorted(snapshot.items.row_of[names[item]] for item in seen)
    assert merged.n_live == sum(item < 6 and type_ != "impression" for item, _, type_, _ in live)
    shown: dict[str, int] = {}
    for item, _, type_, _ in live:
        if item < 6:
            shown[names[item]] = shown.get(names[item], 0) + 1 if type_ == "impression" else 0
    assert {snapshot.items.id_of[row]: n for row, n in merged.shown.items()} == {k: n for k, n in shown.items() if n}
    if timed or user_row is None:
        assert merged.history.times_s is not None
        assert merged.history.times_s.tolist() == sorted(merged.history.times_s.tolist())


def served(make_snapshot: Callable[..., ModelSnapshot]) -> ModelSnapshot:
    return replace(make_snapshot(n_items=30), fold_in=FoldIn("decayed_sum", HistoryWeights(half_life=2.0)))


def test_users_are_computed_once_until_something_changes(make_snapshot: Callable[..., ModelSnapshot]) -> None:
    """An event that the feed brings back changes the watermark and nothing else."""
    model, state = served(make_snapshot), LiveState(100)
    users = LiveUsers(state, SEEN)
    state.load(MemorySnapshot())
    own = event(1, producer="own")
    assert users.user(model, "u1", 1) is None
    state.accept([own])
    first = users.user(model, "u1", 1)
    assert first is not None
    assert users.user(model, "u1", 1) is first
    state.apply(Position(1, 1), [own], marks={"own": Position(1, 1)})
    again = users.user(model, "u1", 1)
    assert again is not None
    assert again.representation is first.representation
    assert (first.watermark, again.watermark) == ("+event-own-1@1000@own:1-1", "own:1-1")
    state.apply(Position(1, 2), [event(2)], marks={"p": Position(1, 2)})
    changed = users.user(model, "u1", 1)
    assert changed is not None
    assert (changed.events_applied, changed.watermark) == (2, "own:1-1,p:1-2")
    assert changed.representation is not first.representation
    other = users.user(replace(model), "u1", None)
    assert other is not None
    assert set(other.seen.tolist()) == {1, 2}
    assert set(changed.seen.tolist()) == {1, 2} | set(model.seen_rows(1).tolist())


def test_users_are_the_same_on_every_replica(make_snapshot: Callable[..., ModelSnapshot]) -> None:
    """To the last bit, whether their events came by snapshot, feed or acceptance."""
    model = served(make_snapshot)
    events = [event(seq, 1_000 * seq, item_id=f"i{seq % 30}") for seq in range(1, 40)]
    found = []
    for n_held, n_fed in ((39, 0), (20, 10), (0, 39), (0, 0)):
        state = LiveState(100)
        users = LiveUsers(state, SEEN)
        state.load(MemorySnapshot(held=events[:n_held], most_events=50))
        state.apply(Position(1, 1), events[n_held : n_held + n_fed])
        state.accept(events[n_held + n_fed :])
        user = users.user(model, "u1", 1)
        assert user is not None
        assert user.representation is not None
        found.append((user.representation.factors.tobytes(), user.seen.tobytes(), user.events_applied, user.as_of))
    assert len(set(found)) == 1


def test_a_large_number_of_users_is_bounded(make_snapshot: Callable[..., ModelSnapshot]) -> None:
    """The oldest go; those without live events cost a name."""
    model, state = served(make_snapshot), LiveState(100_000)
    users = LiveUsers(state, SEEN)
    state.load(MemorySnapshot())
    state.accept([event(seq, producer="own", user_id=f"new-{seq}", item_id="i1") for seq in range(1, 4_200)])
    for seq in range(1, 4_200):
        assert users.user(model, f"new-{seq}", None) is not None
    assert "kept=4096" in repr(users)
