"""The state snapshot as a reader sees it: the last events of each user, memory-mapped.

Invariants: it never changes once it is open, even when its files are replaced and removed. All readers of a machine
share its pages. `events(user_id)` is a function of the archive, `marks`, `since_ms` and the settings of the consumer.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from telemetry.batch import Position
from telemetry.errors import BadEventError, StateError
from telemetry.live.column_file import ColumnFile
from telemetry.live.event_layer import EventLayer, first_half, user_key
from telemetry.live.item_actions import ItemAction, item_actions
from telemetry.live.item_table import ItemTable
from telemetry.live.live_event import LiveEvent, last_events
from telemetry.live.state_manifest import Stamp, StateManifest, stamp_of

# Between the reading of the manifest and the opening a file may be replaced; then another manifest names others.
_ATTEMPTS: Final = 5
_NOTHING: Final = StateManifest("", Position(0, 0), {}, 0, 0, 0, ())


class StateSnapshot:
    """An open snapshot; use `open`.

    Attributes:
        manifest: What it includes.
        stamp: Differs from that of every other snapshot of its directory; None if there is none.
    """

    def __init__(
        self, manifest: StateManifest, layers: list[EventLayer], items: ColumnFile | None, stamp: Stamp | None
    ) -> None:
        self.manifest = manifest
        self._layers = layers
        self._items = items
        self.stamp = stamp
        self._erased = {bytes.fromhex(key): requested_ms for key, requested_ms in manifest.erased.items()}

    @classmethod
    def open(cls, directory: Path) -> "StateSnapshot":
        """Open the snapshot in a directory; one without events if there is none.

        Raises:
            StateError: It is damaged or of another version.
        """
        missing = ""
        for _ in range(_ATTEMPTS):
            stamp = stamp_of(directory)
            manifest = StateManifest.read(directory)
            if manifest is None:
                return cls.empty(None)
            try:
                layers = [EventLayer(directory / name) for name in manifest.layers]
                items = None if manifest.items is None else ColumnFile(directory / manifest.items)
                return cls(manifest, layers, items, stamp)
            except FileNotFoundError as error:
                missing = error.filename
        raise StateError(f"{missing} is named by the state snapshot, but not on the disk.")

    @classmethod
    def empty(cls, stamp: Stamp | None) -> "StateSnapshot":
        """Return a snapshot without events, for a directory with a stamp."""
        return cls(_NOTHING, [], None, stamp)

    @property
    def generation(self) -> int:
        """The generation of the feed that continues it; 0 for none."""
        return self.manifest.position.epoch

    @property
    def position(self) -> Position:
        """The last feed entry that it includes: follow the feed from there."""
        return self.manifest.position

    @property
    def marks(self) -> Mapping[str, Position]:
        """By producer: the position up to which it includes the archived events."""
        return self.manifest.marks

    @property
    def since_ms(self) -> int:
        """The horizon, Unix time in milliseconds: older events are in no state."""
        return self.manifest.since_ms

    @property
    def most_events(self) -> int:
        """How many events of a user are kept."""
        return self.manifest.most_events

    @property
    def n_events(self) -> int:
        """How many events its files hold."""
        return sum(layer.n_events for layer in self._layers)

    @property
    def size_bytes(self) -> int:
        """The size of its files of events, which is the most memory that they can take on this machine."""
        return sum(layer.size_bytes for layer in self._layers)

    def events(self, user_id: str) -> list[LiveEvent]:
        """Return the last events of a user in their order; their `event_id` is empty."""
        return self._events(user_key(user_id), user_id) if self._layers else []

    def _events(self, key: bytes, user_id: str) -> list[LiveEvent]:
        found = [events for layer in self._layers if (events := layer.events(key, user_id))]
        if not found:
            return []
        since_ms, erased_ms = self.since_ms, self._erased.get(key)
        kept = (
            event
            for events in found
            for event in events
            if event.time_ms >= since_ms and (erased_ms is None or event.received_ms > erased_ms)
        )
        return last_events(kept, self.most_events)

    def latest_ms(self) -> int:
        """Return the time of the latest event, Unix time in milliseconds; 0 without events."""
        return max((int(layer.columns["time"].max()) for layer in self._layers if layer.n_events), default=0)

    def item_counts(self, types: Collection[str], from_ms: int) -> Iterator[tuple[list[str], NDArray[np.int64]]]:
        """Count the events of each item from a time on, layer by layer; time is proportional to all events.

        Yields:
            Items, and how many events of these types each has: int64 (n_items,).
        """
        for layer in self._layers:
            yield layer.item_counts(types, from_ms)

    def item_actions(self, is_wanted: Callable[[str], bool]) -> Iterator[ItemAction]:
        """Yield what users did with some items, chosen by id, in any order; time is proportional to all events."""
        erased = {first_half(key): requested_ms for key, requested_ms in self._erased.items()}
        for layer in self._layers:
            for action in item_actions(layer, is_wanted):
                if action.time_ms >= self.since_ms and action.received_ms > erased.get(action.user_half, -1):
                    yield action

    def user_keys(self) -> set[bytes]:
        """Return the digests of all users that have events."""
        keys = {key for layer in self._layers for key in layer.user_keys()}
        return {key for key in keys if self._events(key, "")}

    def stored_events(self, user_id: str) -> list[LiveEvent]:
        """Return everything that the files hold of a user, also what `events` leaves out."""
        key = user_key(user_id)
        return last_events((event for layer in self._layers for event in layer.events(key, user_id)), self.n_events)

    def item_table(self) -> ItemTable:
        """Read the last change of each item.

        Raises:
            StateError: The file is damaged.
        """
        return ItemTable() if self._items is None else read_items(self._items)

    def verify(self) -> None:
        """Compare all files with their checksums; raises StateError."""
        for layer in self._layers:
            layer.verify()
        if self._items is not None:
            self._items.verify()

    def close(self) -> None:
        """Let go of the files; their memory is unmapped once no event is being read."""
        self._layers, self._items = [], None


def read_items(file: ColumnFile) -> ItemTable:
    """Read the table in a file of items; raises StateError."""
    file.verify()
    try:
        return ItemTable.from_bytes(file.column("items").tobytes())
    except (BadEventError, KeyError) as error:
        raise StateError(f"A file of items in the state snapshot cannot be read: {error}.") from None
