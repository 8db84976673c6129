"""Brings the state of an earlier consumer up to the archive, or makes it from the archive alone.

Invariant: afterwards the store holds every live event that was archived before the call and is not older than the
horizon.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from telemetry.batch import Position
from telemetry.errors import StateError
from telemetry.ids import rfc3339_ms
from telemetry.live.archive_tail import read_tail
from telemetry.live.item_table import ItemTable
from telemetry.live.layer_merge import KeepRules
from telemetry.live.live_event import LiveEvent, live_event
from telemetry.live.state_manifest import StateManifest
from telemetry.live.state_store import StateStore

_DATE_LENGTH: Final = len("2026-11-21")
_BATCH_EVENTS: Final = 50_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """The state to restore.

    Attributes:
        archive: The archive's identity.
        watermarks: By producer: how far it is archived.
        since_ms: The horizon, Unix time in milliseconds.
        days, most_events, types: As in `StateManifest`.
    """

    archive: str
    watermarks: Mapping[str, Position]
    since_ms: int
    days: int
    most_events: int
    types: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Restored:
    """The result.

    Attributes:
        events: How many live events were read from the archive.
        rebuilt: Why all of them were; None if a snapshot was continued.
        since_ms: The horizon.
        items: The last change of each item.
        position: The feed's position in the snapshot on the disk; (0, 0) without one.
    """

    events: int
    rebuilt: str | None
    since_ms: int
    items: ItemTable
    position: Position


def restore(root: Path, store: StateStore, wanted: Wanted, stop: threading.Event) -> Restored:
    """Load what is stored, and add what the archive has beyond it.

    Args:
        root: The archive.
        stop: Ends the reading early; the result is then of no use.

    Raises:
        ArchiveError: The archive cannot be read.
        OSError: The state cannot be written.
    """
    items, position = ItemTable(), Position(0, 0)
    try:
        stored = store.load()
        reason = reason_to_rebuild(stored, wanted)
        if stored is not None and stored.archive == wanted.archive:
            # Changes of items outlive the retention of the archive here.
            items, position = store.read_items(), stored.position
    except (StateError, OSError) as error:
        stored, reason = None, str(error)
    if reason is not None or stored is None:
        stored = None
        store.clear()
    since_ms = wanted.since_ms if stored is None else max(wanted.since_ms, stored.since_ms)
    rules = KeepRules(wanted.most_events, since_ms)
    batch: list[LiveEvent] = []
    count = 0
    for record in read_tail(root, stored, rfc3339_ms(since_ms / 1000)[:_DATE_LENGTH]):
        if stop.is_set():
            break
        event = live_event(record, wanted.types)
        if event is None:
            items.apply(record)
        elif event.time_ms >= since_ms:
            batch.append(event)
            count += 1
        if len(batch) >= _BATCH_EVENTS:
            store.add(batch, rules)
            batch = []
    store.add(batch, rules)
    return Restored(count, reason, since_ms, items, position)


def reason_to_rebuild(stored: StateManifest | None, wanted: Wanted) -> str | None:
    """Return why a stored state cannot be continued; None if it can (pure)."""
    if stored is None:
        return "There is no state snapshot."
    if stored.archive != wanted.archive:
        return "The state snapshot is of another archive."
    beyond = [name for name, mark in stored.marks.items() if mark > wanted.watermarks.get(name, Position(0, 0))]
    if beyond:
        return f"The state snapshot has events of producer {beyond[0]} that the archive lacks."
    if (stored.types, stored.days, stored.most_events) == (wanted.types, wanted.days, wanted.most_events):
        return None
    if stored.types != wanted.types:
        return "Other types of events are live now."
    if stored.days < wanted.days or stored.most_events < wanted.most_events:
        return "More events of each user are live now."
    return None
