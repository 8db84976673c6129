import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.batch import EventPosition
from telemetry.live import layer_merge
from telemetry.live.event_layer import EventLayer, user_key, write_layer
from telemetry.live.layer_merge import KeepRules, layers_to_merge, write_merged
from telemetry.live.live_event import LIVE_TYPES, LiveEvent

USERS = ("42", "ü", "u3", "u4")

EVENTS = st.lists(
    st.builds(
        lambda user, item, kind, value, time_ms, delay_ms, producer, epoch, seq: LiveEvent(
            user, item, kind, value, 100 * seq + time_ms, 100 * seq + time_ms + delay_ms, "",
            EventPosition(producer, epoch, seq),
        ),
        st.sampled_from(USERS),
        st.sampled_from(("i1", "", "ü" * 40)),
        st.sampled_from(LIVE_TYPES),
        st.none() | st.floats(allow_nan=False),
        st.just(0),
        st.integers(0, 2**33),
        st.sampled_from("pq"),
        st.integers(1, 3),
        st.integers(1, 12),
    ),
    max_size=40,
    unique_by=lambda event: event.position,
)  # fmt: skip


def expected(events: list[LiveEvent], rules: KeepRules) -> dict[str, list[LiveEvent]]:
    """The definition."""
    found = {}
    for user in USERS:
        erased_ms = rules.erased.get(user_key(user), -1)
        kept = {
            event
            for event in events
            if event.user_id == user and event.time_ms >= rules.since_ms and event.received_ms > erased_ms
        }
        found[user] = sorted(kept, key=lambda event: event.order)[-rules.most :]
    return found


@settings(max_examples=150, deadline=None)
@given(
    events=EVENTS,
    parts=st.lists(st.lists(st.integers(0, 39), max_size=40), min_size=1, max_size=4),
    most=st.integers(1, 6),
    since_ms=st.integers(0, 1300),
    erased=st.dictionaries(st.sampled_from([user_key(user) for user in (*USERS, "no user")]), st.integers(0, 1300)),
    block_events=st.sampled_from([1, 3, 1 << 20]),
)
def test_a_merge_keeps_the_last_events_of_the_union(
    tmp_path_factory: pytest.TempPathFactory,
    events: list[LiveEvent],
    parts: list[list[int]],
    most: int,
    since_ms: int,
    erased: dict[bytes, int],
    block_events: int,
) -> None:
    """Whatever is in which layer, in however many, and whatever was merged before."""
    directory = tmp_path_factory.mktemp("layers")
    rules = KeepRules(most, since_ms, erased)
    parts[0] = list(range(len(events)))
    layers = []
    for number, part in enumerate(parts):
        write_layer(directory / str(number), [events[index] for index in part if index < len(events)], 100)
        layers.append(EventLayer(directory / str(number)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer_merge, "_BLOCK_EVENTS", block_events)
        write_merged(directory / "some", layers[1:] or layers, KeepRules(100, 0))
        write_merged(directory / "all", [*layers, EventLayer(directory / "some")], rules)
    merged = EventLayer(directory / "all")
    merged.verify()
    kept = expected(events, rules)
    assert {user: merged.events(user_key(user), user) for user in USERS} == kept
    assert merged.n_users == sum(bool(events) for events in kept.values())
    assert sorted(merged.items()) == sorted({event.item_id for events in kept.values() for event in events})


def test_an_event_is_rewritten_a_few_times_however_many_there_are() -> None:
    """Sizes grow by four from layer to layer, so there are as many as the logarithm says."""
    chance = random.Random(3)
    sizes: list[int] = []
    written = total = 0
    for _ in range(3000):
        new = chance.randint(1, 2000)
        total += new
        count = layers_to_merge(sizes, new)
        merged = new + sum(sizes[len(sizes) - count :])
        sizes = [*sizes[: len(sizes) - count], merged]
        written += merged
        assert all(left >= 4 * right for left, right in pairwise(sizes))
    assert sum(sizes) == total
    assert len(sizes) <= 12
    assert written <= 12 * total
