"""A model with the live state on the disk, as a replica would serve it: no server has to run."""

import asyncio
from collections.abc import Iterable
from typing import Final

from service.catalogue.catalogue import Catalogue
from service.config import Config
from service.errors import ModelMissing, RunError
from service.live.live_state import LiveState
from service.models.files import active_model, artefact, versions
from service.models.snapshot import ModelSnapshot
from service.serving.catalogue.keeper import CatalogueKeeper
from service.serving.model.store import ModelStore
from telemetry.batch import Position
from telemetry.errors import ArchiveError, StateError
from telemetry.events import ItemChange, Record
from telemetry.ids import rfc3339_ms
from telemetry.live.archive_tail import read_tail
from telemetry.live.live_event import live_event
from telemetry.live.live_feed_reader import FeedBatch
from telemetry.live.state_snapshot import StateSnapshot

_DATE_LENGTH: Final = len("2026-11-21")
_MS_PER_S: Final = 1000


class OfflineModel:
    """A version with the events and item changes up to a moment.

    Args:
        config: The installation.
        version: The version; None for the active one.
        stored: The state snapshot and what was archived since; None to read those of now.

    Attributes:
        state: The live events of users.
        marks: By producer: the position of its last event that the state includes.

    Raises:
        ModelMissing: There is no such version, or none is active.
        ModelRefused: The version fails its checks.
        RunError: The state or the archive cannot be read.
    """

    def __init__(
        self, config: Config, version: str | None = None, stored: tuple[StateSnapshot, Iterable[Record]] | None = None
    ) -> None:
        name = active_version(config) if version is None else version
        self.pseudonyms: Final = config.pseudonymiser()
        self._store = ModelStore(artefact.load(versions.directory_of(config.models_dir, name)))
        self.state: Final = LiveState(most_pending=0, most_events=config.live.events_per_user)
        try:
            snapshot, records = stored_state(config) if stored is None else stored
            self.marks: Final = dict(snapshot.marks)
            batch = _batch_of(snapshot, records, self.marks)
        except (StateError, ArchiveError, OSError) as error:
            raise RunError(f"The live state cannot be read: {error}") from error
        self.state.load(snapshot)
        self.state.apply(batch.position, batch.events)
        asyncio.run(self._follow(batch))

    @property
    def version(self) -> str | None:
        """The version."""
        return self._store.version

    @property
    def snapshot(self) -> ModelSnapshot:
        """The model, with rows for the items that it was not trained on."""
        return self._store.current()

    @property
    def model(self) -> ModelSnapshot:
        """The model as it was published."""
        return self._store.model

    @property
    def catalogue(self) -> Catalogue:
        """The item catalogue of the snapshot's rows."""
        return self._store.catalogue

    def user_row(self, user_id: str, pseudonym: str) -> int | None:
        """Return the row of a user; None if the model does not know the user."""
        row_of = self.snapshot.users.row_of
        # A model that was trained on archived events holds pseudonyms.
        return row_of.get(user_id, row_of.get(pseudonym))

    async def _follow(self, batch: FeedBatch) -> None:
        keeper = CatalogueKeeper(self._store, self.pseudonyms)
        await keeper.follow(batch)
        await keeper.build()


def active_version(config: Config) -> str:
    """Return the active version of the ranking role.

    Raises:
        ModelMissing: None is active.
    """
    version = active_model.version(config.models_dir, "ranking")
    if version is None:
        raise ModelMissing(f"No model is active in {config.models_dir}; make one with: recollect train --data PATH.")
    return version


def stored_state(config: Config) -> tuple[StateSnapshot, Iterable[Record]]:
    """Return the state snapshot and what was archived since; nothing if no consumer has written a snapshot yet.

    Raises:
        StateError: The snapshot is damaged or of another version.
        ArchiveError: The archive cannot be read; raised as the records are read.
    """
    snapshot = StateSnapshot.open(config.state_dir)
    if snapshot.stamp is None:
        return snapshot, ()
    return snapshot, read_tail(config.archive_dir, snapshot.manifest, first_day(snapshot))


def first_day(snapshot: StateSnapshot) -> str:
    """Return the first UTC date of which events are in the state."""
    return rfc3339_ms(snapshot.since_ms / _MS_PER_S)[:_DATE_LENGTH]


def _batch_of(snapshot: StateSnapshot, records: Iterable[Record], marks: dict[str, Position]) -> FeedBatch:
    """Return the state as one batch of the feed, and raise the marks to the last events of it."""
    batch = FeedBatch(snapshot, marks=dict(snapshot.marks), position=snapshot.position)
    for record in records:
        position = Position(record.epoch, record.seq)
        marks[record.producer] = max(position, marks.get(record.producer, position))
        event = live_event(record, snapshot.manifest.types)
        if event is not None:
            batch.events.append(event)
        elif isinstance(record.event, ItemChange):
            batch.item_changes.append(record)
    return batch
