from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from telemetry.batch import EventPosition, Position
from telemetry.errors import StateError
from telemetry.live.event_layer import EventLayer, user_key, write_layer
from telemetry.live.live_event import LIVE_TYPES, LiveEvent
from telemetry.live.state_manifest import FILE_NAME, StateManifest, stamp_of
from telemetry.live.state_snapshot import StateSnapshot

USERS = ("42", "ü\n", "x" * 128, "p-0123456789abcdef0123456789abcdef")


def event(user_id: str, seq: int, **changes: Any) -> LiveEvent:
    """Return an event of which every field differs with its number; snapshots keep no event id."""
    time_ms = 1_700_000_000_000 + seq
    value = (None, 4.5, 0.1, 1e300)[seq % 4]
    made = LiveEvent(
        user_id,
        f"item {seq % 7}",
        LIVE_TYPES[seq % 6],
        value,
        time_ms,
        time_ms + seq % 3 * 1000,
        "",
        EventPosition(f"p{seq % 3}", 1 + seq % 2, seq),
    )
    return made._replace(**changes)


def write(directory: Path, layers: Mapping[str, list[LiveEvent]], **changes: Any) -> None:
    for name, events in layers.items():
        write_layer(directory / name, events, 100)
    facts: dict[str, Any] = {"since_ms": 0, "days": 365, "most_events": 100, "types": LIVE_TYPES, **changes}
    StateManifest("a", Position(3, 4), {"p0": Position(1, 9)}, layers=tuple(layers), **facts).write(directory)


def test_the_events_of_each_user_read_back(tmp_path: Path) -> None:
    """Every field, in the users' order, from one file and from several; others have none."""
    events = [event(user_id, seq) for seq in range(1, 41) for user_id in USERS[: 1 + seq % 4]]
    write(tmp_path, {"a": events[::2], "b": events[1::3], "c": events})
    snapshot = StateSnapshot.open(tmp_path)
    for user_id in USERS:
        assert snapshot.events(user_id) == sorted(
            (one for one in events if one.user_id == user_id), key=lambda one: one.order
        )
    assert snapshot.events("another") == []
    assert (snapshot.generation, snapshot.position) == (3, Position(3, 4))
    assert snapshot.marks == {"p0": Position(1, 9)}


def test_the_last_events_are_kept(tmp_path: Path) -> None:
    """At most so many, none before the horizon, and none of an erased user received by the time of the request."""
    events = [event("42", seq, received_ms=1_700_000_000_000 + seq) for seq in range(1, 21)]
    erased = {user_key("42").hex(): 1_700_000_000_018}
    write(tmp_path, {"a": events[:11], "b": events[9:]}, most_events=5)
    assert [one.position.seq for one in StateSnapshot.open(tmp_path).events("42")] == [16, 17, 18, 19, 20]
    write(tmp_path, {"a": events}, since_ms=1_700_000_000_019)
    assert [one.position.seq for one in StateSnapshot.open(tmp_path).events("42")] == [19, 20]
    write(tmp_path, {"a": events}, erased=erased)
    assert [one.position.seq for one in StateSnapshot.open(tmp_path).events("42")] == [19, 20]


def test_users_whose_digests_begin_alike_are_kept_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first half finds the place, and both halves decide."""
    monkeypatch.setattr(
        "telemetry.live.event_layer.user_key", lambda user_id: b"same 8 b" + user_id.encode().rjust(8, b"\0")
    )
    write_layer(tmp_path / "layer", [event(user_id, seq) for seq, user_id in enumerate("abc", 1)], 10)
    layer = EventLayer(tmp_path / "layer")
    keys = {user_id: b"same 8 b" + user_id.encode().rjust(8, b"\0") for user_id in "abcd"}
    assert [len(layer.events(keys[user_id], user_id)) for user_id in "abcd"] == [1, 1, 1, 0]
    assert layer.events(keys["b"], "b") == [event("b", 2)]


def test_without_files_there_are_no_events(tmp_path: Path) -> None:
    """As before the first consumer ran."""
    snapshot = StateSnapshot.open(tmp_path / "state")
    assert (snapshot.events("42"), snapshot.position, snapshot.marks) == ([], Position(0, 0), {})
    assert snapshot.stamp is None


def test_a_reader_keeps_what_it_opened(tmp_path: Path) -> None:
    """Files that are replaced and removed stay mapped; the next `open` finds the new ones."""
    write(tmp_path, {"a": [event("42", 1)]})
    old = StateSnapshot.open(tmp_path)
    (tmp_path / "a").unlink()
    write(tmp_path, {"b": [event("42", 2)]})
    assert stamp_of(tmp_path) != old.stamp
    assert old.events("42") == [event("42", 1)]
    assert StateSnapshot.open(tmp_path).events("42") == [event("42", 2)]


@pytest.mark.parametrize("name", [FILE_NAME, "a"])
def test_damage_is_found(tmp_path: Path, name: str) -> None:
    """In any byte: at once in the manifest and the footer, and in a column when the file is verified."""
    write(tmp_path, {"a": [event("42", seq) for seq in range(1, 9)]})
    path = tmp_path / name
    whole = path.read_bytes()
    layer = EventLayer(tmp_path / "a")
    padding = whole.count(b"\0")
    unnoticed = 0
    for index in range(0, len(whole) - 1, 3):
        path.write_bytes(whole[:index] + bytes([whole[index] ^ 1]) + whole[index + 1 :])
        try:
            StateSnapshot.open(tmp_path)
            EventLayer(tmp_path / "a").verify()
        except StateError:
            continue
        unnoticed += 1
    assert layer.n_events == 8
    # The bytes between columns belong to none.
    assert unnoticed < (padding if name == "a" else 1)
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(StateError):
            StateSnapshot.open(tmp_path)


def test_another_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later version's files are not read as if they were of this one."""
    with monkeypatch.context() as later:
        later.setattr("telemetry.live.state_manifest.FORMAT", 2)
        write(tmp_path, {})
    with pytest.raises(StateError, match="another format"):
        StateSnapshot.open(tmp_path)
    with monkeypatch.context() as later:
        later.setattr("telemetry.live.column_file._FORMAT", 2)
        write(tmp_path, {"a": [event("42", 1)]})
    with pytest.raises(StateError, match="is of format 2"):
        StateSnapshot.open(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """Somebody removed it."""
    write(tmp_path, {"a": [event("42", 1)]})
    (tmp_path / "a").unlink()
    with pytest.raises(StateError, match="/a is named by the state snapshot, but not on the disk"):
        StateSnapshot.open(tmp_path)
