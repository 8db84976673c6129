"""What users did with some items, read from a snapshot by item."""

from pathlib import Path

from telemetry.batch import EventPosition, Position
from telemetry.live.event_layer import user_key, write_layer
from telemetry.live.item_actions import ItemAction
from telemetry.live.live_event import LIVE_TYPES, LiveEvent
from telemetry.live.state_manifest import StateManifest
from telemetry.live.state_snapshot import StateSnapshot

START_MS = 1_700_000_000_000


def event(user_id: str, item_id: str, seq: int, type_: str, value: float | None) -> LiveEvent:
    time_ms = START_MS + 10 * seq
    return LiveEvent(user_id, item_id, type_, value, time_ms, time_ms + 5, "", EventPosition("p", 1, seq))


def test_the_actions_on_items_are_found_in_every_layer(tmp_path: Path) -> None:
    """With the user's half digest; none before the horizon, and none of an erased user up to the request."""
    events = [
        event(user, item, seq, "rating" if value else "click", value)
        for seq, (user, item, value) in enumerate(
            [("a", "new", 4.5), ("b", "old", 1.0), ("b", "new", None), ("c", "new", 2.0), ("c", "other", 3.0)] * 2, 1
        )
    ]
    write_layer(tmp_path / "one", events[:4], 100)
    write_layer(tmp_path / "two", events[4:], 100)
    since_ms, requested_ms = START_MS + 20, START_MS + 70
    StateManifest(
        "a",
        Position(3, 4),
        {},
        since_ms=since_ms,
        days=365,
        most_events=100,
        types=LIVE_TYPES,
        layers=("one", "two"),
        erased={user_key("a").hex(): requested_ms},
    ).write(tmp_path)
    snapshot = StateSnapshot.open(tmp_path)
    expected = [
        ItemAction(
            int.from_bytes(user_key(one.user_id)[:8]), one.item_id, one.type, one.value, one.time_ms, one.received_ms
        )
        for one in events
        if one.item_id in {"new", "other"}
        and one.time_ms >= since_ms
        and (one.user_id != "a" or one.received_ms > requested_ms)
    ]
    assert len(expected) == 6
    assert sorted(snapshot.item_actions({"new", "other"}.__contains__), key=str) == sorted(expected, key=str)
    assert list(snapshot.item_actions(lambda _item: False)) == []
    assert list(StateSnapshot.empty(None).item_actions(lambda _item: True)) == []
