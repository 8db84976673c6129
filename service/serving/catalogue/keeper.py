"""Keeps the served item catalogue at the last item changes.

Invariants:

- A change of an item that the served snapshot has a row for is in `store.catalogue` before the call that brought it
  returns: a removed or hidden item is in no list from then on. Columns for filters and rows of new items follow within
  a fraction of a second, built in a thread.
- A model that is swapped in has the changes, too: `ModelCheck` builds it with those known at that time, and the later
  ones are applied to its catalogue at the swap.
- Building takes at most a fifth of a core, however many changes come. Actions of users on new items wait some seconds
  for a build: they refine the rows of these items, and hide or show none.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import structlog

from service.catalogue.live_items import LiveItems
from service.catalogue.served_model import ServedModel, record_of
from service.models.items.record import ItemRecord
from service.models.snapshot import ModelSnapshot
from service.serving.catalogue.rater_follower import RaterFollower
from service.serving.model.store import ModelStore
from telemetry.batch import EventPosition, Position
from telemetry.daemon_thread import run_in_daemon_thread
from telemetry.errors import StateError
from telemetry.events import ItemChange, Record
from telemetry.live.item_table import ItemTable
from telemetry.live.live_feed_reader import FeedBatch
from telemetry.pseudonym import Pseudonymiser

_log = structlog.get_logger("recollect.catalogue")
# The pause after a build, as a multiple of the build's time, and its least length. Changes in it are built together.
_PAUSE_FACTOR: Final = 4.0
_LEAST_PAUSE_S: Final = 0.05
# How long actions on new items are gathered.
_GATHER_S: Final = 3.0


class CatalogueKeeper:
    """Puts item changes into a store. Called in the event loop's thread, as is all but what `builder` returns.

    Args:
        store: Holds the served model and its catalogue.
        pseudonyms: Maps user ids of the models to those of telemetry; None if both are the same.
    """

    def __init__(self, store: ModelStore, pseudonyms: Pseudonymiser | None = None) -> None:
        self._store = store
        self._pseudonyms = pseudonyms or Pseudonymiser()
        self._raters = RaterFollower(store)
        self._position = Position(0, 0)
        self._gathering: asyncio.TimerHandle | None = None
        self._items = LiveItems()
        self._changed = asyncio.Event()
        # Items changed since the revision of the last build, with the revision of their last change.
        self._recent: dict[str, int] = {}
        store.on_swap(self._overlay)

    def __repr__(self) -> str:
        return f"<CatalogueKeeper {self._items!r}>"

    @property
    def revision(self) -> int:
        """Grows with each change."""
        return self._items.revision

    def accept(self, changes: Sequence[ItemChange], first: EventPosition) -> None:
        """Apply changes that this replica accepted, the first at this position and the others behind it."""
        self._put(self._items.accept(changes, first))

    def apply(self, records: Sequence[Record], marks: Mapping[str, Position]) -> None:
        """Apply what the feed delivered, up to its marks."""
        self._put(self._items.apply(records, marks))

    def load(self, table: ItemTable) -> None:
        """Add the state of a snapshot."""
        self._put(self._items.load(table))

    async def follow(self, batch: FeedBatch) -> None:
        """Apply what the feed delivered; a snapshot is read in a thread."""
        snapshot = batch.snapshot
        # A newer snapshot of what the feed has delivered holds nothing new.
        if snapshot is not None and (
            snapshot.position.epoch != self._position.epoch or snapshot.position > self._position
        ):
            self._raters.take(snapshot)
            try:
                self.load(await run_in_daemon_thread(snapshot.item_table, "item-state-loader"))
            except StateError as error:
                # The feed goes on, and a later snapshot has it all.
                _log.error("item state not loaded", reason=str(error))
            await self._raters.read()
        self.apply(batch.item_changes, batch.marks)
        self._raters.apply(batch)
        self._gather()
        self._position = max(batch.position, self._position if snapshot is None else snapshot.position)

    def record(self, item_id: str) -> ItemRecord | None:
        """Return the record of an item now; None if there is no such item."""
        model = self._store.current()
        row = model.items.row_of.get(item_id)
        change = self._items.get(item_id)
        if change is None:
            return None if row is None else self._store.catalogue.record(row)
        return None if change.kind == "delete" else record_of(change, self._store.model, row)

    def is_removed(self, item_id: str) -> bool:
        """Whether an item was removed and not written again."""
        change = self._items.get(item_id)
        return change is not None and change.kind == "delete"

    def builder(self) -> Callable[[ModelSnapshot], ServedModel]:
        """Return a function that builds a model with the changes of this moment; it may be called in another thread."""
        items, before, raters = self._items.copy(), self._store.served, self._raters.state()

        def build(model: ModelSnapshot) -> ServedModel:
            return ServedModel(model, items, before, raters, self._pseudonyms)

        return build

    async def run(self) -> None:
        """Build what changes ask for, until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            started_s = time.perf_counter()
            await self._raters.read()
            await self._build()
            await asyncio.sleep(max(_LEAST_PAUSE_S, _PAUSE_FACTOR * (time.perf_counter() - started_s)))

    async def build(self) -> None:
        """Build once, if anything changed; for tests and tools without `run`."""
        self._changed.clear()
        await self._build()

    async def _build(self) -> None:
        served = self._store.served
        if served is None or not self._is_behind(served):
            return
        build = self.builder()
        try:
            built = await run_in_daemon_thread(lambda: build(served.model), "catalogue-builder")
        except Exception:  # noqa: BLE001 (the task must go on; the error is logged)
            # The served catalogue stays; the next change tries again.
            _log.exception("the item catalogue was not built")
            return
        current = self._store.served
        if current is not None and current.model is served.model:
            self._store.swap(built.model, built)
        else:
            # Another model was swapped in meanwhile.
            self._changed.set()

    def _is_behind(self, served: ServedModel) -> bool:
        return served.revision != self._items.revision or self._raters.is_ahead_of(served)

    def _gather(self) -> None:
        """Schedule a build for actions on new items."""
        served = self._store.served
        if served is not None and self._gathering is None and self._is_behind(served):
            self._gathering = asyncio.get_running_loop().call_later(_GATHER_S, self._gathered)

    def _gathered(self) -> None:
        self._gathering = None
        self._changed.set()

    def _put(self, changed: Iterable[str]) -> None:
        changed = list(changed)
        if changed:
            self._recent.update(dict.fromkeys(changed, self._items.revision))
            self._overlay_items(changed)
            self._changed.set()

    def _overlay(self) -> None:
        """Put the changes that a swapped-in model was built without over its catalogue."""
        served = self._store.served
        if served is None:
            return
        self._recent = {item_id: at for item_id, at in self._recent.items() if at > served.revision}
        if self._recent:
            self._overlay_items(self._recent)
        if not self._raters.is_complete or served.revision != self._items.revision:
            self._changed.set()

    def _overlay_items(self, item_ids: Iterable[str]) -> None:
        """Put the last changes of items over the served catalogue, as far as the served snapshot has rows for them."""
        served = self._store.served
        if served is None:
            return
        row_of = self._store.current().items.row_of
        records: dict[int, ItemRecord] = {}
        for item_id in item_ids:
            row, change = row_of.get(item_id), self._items.get(item_id)
            if row is not None:
                records[row] = record_of(change, served.model, row)
        if records:
            self._store.replace_catalogue(self._store.catalogue.with_records(records, self._items.watermark))
