"""The files of the state snapshot, as the consumer keeps them.

Invariants: a saved state is complete, because its files are written and synced before the manifest that names them, and
files are removed only afterwards. Only files that this store knows are removed, so a consumer that lost its lease
removes nothing of its successor. New events become a small layer, which is merged with the last layers of a similar
size: what is written for an event hardly depends on how many there are.

Used by one thread at a time.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from telemetry.errors import StateError
from telemetry.events import Record, encode
from telemetry.failpoints import Failpoints
from telemetry.ids import uuid7
from telemetry.live.column_file import ColumnFile, write_columns
from telemetry.live.event_layer import EventLayer, write_layer
from telemetry.live.item_table import ItemTable
from telemetry.live.layer_merge import KeepRules, layers_to_merge, write_merged
from telemetry.live.live_event import LiveEvent
from telemetry.live.state_manifest import FILE_NAME, Stamp, StateManifest, stamp_of
from telemetry.live.state_snapshot import read_items
from telemetry.wal.disk import sync_directory

_EVENTS_SUFFIX: Final = ".events"
_ITEMS_SUFFIX: Final = ".items"
_SUFFIXES: Final = (_EVENTS_SUFFIX, _ITEMS_SUFFIX)
_SAMPLE_EVENTS: Final = 20_000
# How much of the limit an overfull state keeps, so that it is not overfull again at once.
_KEPT_SHARE: Final = 0.9


class StateStore:
    """The layers of one directory.

    Attributes:
        manifest: The last one that was saved or loaded; None before.
    """

    def __init__(self, directory: Path, failpoints: Failpoints | None = None) -> None:
        self.directory = directory
        self.manifest: StateManifest | None = None
        self._failpoints = failpoints or Failpoints()
        self._layers: list[EventLayer] = []
        self._stamp: Stamp | None = None
        # Those that this store has written or loaded, as far as they may still exist.
        self._files: set[str] = set()

    @property
    def n_events(self) -> int:
        """How many events the layers hold."""
        return sum(layer.n_events for layer in self._layers)

    @property
    def size_bytes(self) -> int:
        """The size of the layers."""
        return sum(layer.size_bytes for layer in self._layers)

    def is_intact(self) -> bool:
        """Whether the files on the disk are still those that were saved."""
        manifest = self.manifest
        names = () if manifest is None else (*manifest.layers, *filter(None, [manifest.items]))
        return self._stamp == stamp_of(self.directory) and all((self.directory / name).exists() for name in names)

    def load(self) -> StateManifest | None:
        """Load and verify what an earlier consumer saved; None if there is nothing.

        Raises:
            StateError: It is damaged or of another version.
        """
        self.clear()
        manifest = StateManifest.read(self.directory)
        if manifest is None:
            return None
        try:
            layers = [EventLayer(self.directory / name) for name in manifest.layers]
        except FileNotFoundError as error:
            raise StateError(f"{error.filename} is named by the state snapshot, but not on the disk.") from None
        for layer in layers:
            layer.verify()
        self.manifest, self._layers, self._stamp = manifest, layers, stamp_of(self.directory)
        self._files.update(manifest.layers, () if manifest.items is None else (manifest.items,))
        return manifest

    def clear(self) -> None:
        """Begin without events; the files stay until the next manifest is saved."""
        self._files.update(layer.name for layer in self._layers)
        self.manifest, self._layers, self._stamp = None, [], None

    def has_user(self, key: bytes) -> bool:
        """Whether a layer holds an event of a user, by digest."""
        return any(layer.row_of(key) is not None for layer in self._layers)

    def add(self, events: Sequence[LiveEvent], rules: KeepRules) -> None:
        """Add events in any order; they are saved with the next manifest.

        Raises:
            OSError: The disk refuses; nothing has changed.
        """
        if not events:
            return
        path = self._new_path()
        write_layer(path, events, rules.most)
        new = EventLayer(path)
        count = layers_to_merge([layer.n_events for layer in self._layers], new.n_events)
        kept, merged = self._layers[: len(self._layers) - count], self._layers[len(self._layers) - count :]
        self._layers = [*kept, self._merged([*merged, new], rules) if merged else new]

    def remove_erased(self, rules: KeepRules) -> None:
        """Rewrite every layer that holds a user of `rules.erased`; raises OSError, and then nothing has changed."""
        self._layers = [
            self._merged([layer], rules) if any(layer.row_of(key) is not None for key in rules.erased) else layer
            for layer in self._layers
        ]

    def horizon(self, since_ms: int, limit_bytes: int) -> int:
        """Return the horizon: the given one, or a later one if the state is larger than a limit."""
        excess = 1 - _KEPT_SHARE * limit_bytes / max(self.size_bytes, 1)
        if self.size_bytes <= limit_bytes:
            return since_ms
        stride = max(1, self.n_events // _SAMPLE_EVENTS)
        times = np.sort(np.concatenate([layer.columns["time"][::stride] for layer in self._layers]))
        return max(since_ms, int(times[int(len(times) * excess)]))

    def merge_all(self, rules: KeepRules) -> None:
        """Make one layer of all, as after a change of the rules; raises OSError, and then nothing has changed."""
        if self._layers:
            self._layers = [self._merged(self._layers, rules)]

    def prepare(
        self,
        manifest: StateManifest,
        rules: KeepRules,
        events: Sequence[LiveEvent],
        items: Iterable[Record] | None,
        limit_bytes: int,
        *,
        purge: bool,
    ) -> StateManifest:
        """Write the files of the next manifest, and return it as it can be saved.

        Args:
            items: The last changes of items; None if they are those of `manifest.items`.
            limit_bytes: How large the layers may be together; beyond it the horizon moves.
            purge: Whether every layer with an erased user is rewritten.

        Raises:
            OSError: The disk refuses.
        """
        self.add(events, rules)
        if not all((self.directory / layer.name).exists() for layer in self._layers):
            # They are still mapped.
            self.merge_all(rules)
        if purge:
            self.remove_erased(rules)
        if items is not None:
            manifest = replace(manifest, items=self.write_items(items))
        since_ms = self.horizon(manifest.since_ms, limit_bytes)
        if since_ms > manifest.since_ms:
            manifest = replace(manifest, since_ms=since_ms)
            self.merge_all(replace(rules, since_ms=since_ms))
        return manifest

    def save(self, manifest: StateManifest) -> None:
        """Replace the manifest by one with the present layers, and remove the files that it does not name.

        Raises:
            OSError: The disk refuses.
        """
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync_directory(self.directory)
        self._failpoints.hit("live.layered")
        manifest = replace(manifest, layers=tuple(layer.name for layer in self._layers))
        stamp = manifest.write(self.directory)
        self._failpoints.hit("live.saved")
        self.manifest, self._stamp = manifest, stamp
        named = {*manifest.layers, manifest.items}
        for name in self._files - named:
            (self.directory / name).unlink(missing_ok=True)
        self._files &= named

    def write_items(self, records: Iterable[Record]) -> str:
        """Write the file of items with their last changes; returns its name. Raises OSError."""
        path = self._new_path(_ITEMS_SUFFIX)
        data = b"".join(encode(*record) for record in records)
        write_columns(path, [("items", [np.frombuffer(data, np.uint8)])], {})
        return path.name

    def read_items(self) -> ItemTable:
        """Read the last changes of items that were loaded; raises StateError."""
        name = None if self.manifest is None else self.manifest.items
        return ItemTable() if name is None else read_items(ColumnFile(self.directory / name))

    def remove_remains(self) -> None:
        """Remove the files of killed consumers, which no manifest names. Only right after the lease was acquired."""
        manifest = self.manifest
        named = {FILE_NAME} if manifest is None else {FILE_NAME, *manifest.layers, manifest.items}
        for path in self.directory.glob("*"):
            if path.name not in named and (path.suffix in _SUFFIXES or path.name.startswith(".")):
                path.unlink(missing_ok=True)

    def _merged(self, layers: Sequence[EventLayer], rules: KeepRules) -> EventLayer:
        path = self._new_path()
        write_merged(path, layers, rules)
        return EventLayer(path)

    def _new_path(self, suffix: str = _EVENTS_SUFFIX) -> Path:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = f"{uuid7()}{suffix}"
        self._files.add(name)
        return self.directory / name
