"""The search of one replica: the text index of its catalogue, kept at the last item changes.

Invariants:

- Nothing is indexed before the first search, and searches run in threads beside the event loop, one at a time.
- A search finds the items as the catalogue has them when it begins: changes since the last search are indexed first.
- Another model's items are indexed while the old index answers. An index holds items, and no user.
"""

import asyncio
import weakref
from typing import Final

from service.catalogue.catalogue import Catalogue
from service.errors import Unavailable
from service.models.items.record import ItemRecord
from service.models.snapshot import ModelSnapshot
from service.search.item_search import ItemSearch, SearchResult, find
from service.search.text_index import TextIndex
from telemetry.daemon_thread import run_in_daemon_thread

# How long a search waits for the first index.
_PATIENCE_S: Final = 2.0


class _Indexed:
    """The text index of a model, with the items that were written since the training."""

    def __init__(self, model: ModelSnapshot) -> None:
        self.index = TextIndex(model)
        # Not the model itself, which may hold users who were erased since.
        self._model = weakref.ref(model)
        self._written: dict[str, ItemRecord] = {}
        self._catalogue: weakref.ref[Catalogue] | None = None

    def is_of(self, model: ModelSnapshot) -> bool:
        return self._model() is model

    def catch_up(self, snapshot: ModelSnapshot, catalogue: Catalogue) -> None:
        """Write the items that differ from those of the last catalogue."""
        if self._catalogue is not None and self._catalogue() is catalogue:
            return
        id_of, written = snapshot.items.id_of, self._written
        live = {id_of[row]: record for row, record in catalogue.live.items()}
        changed = {item_id: record for item_id, record in live.items() if written.get(item_id) != record}
        if changed:
            self.index.write(changed.items())
        self._written = live
        self._catalogue = weakref.ref(catalogue)


class CatalogueSearch:
    """Searches the items; called in the event loop's thread."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._indexed: _Indexed | None = None
        self._building: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<CatalogueSearch {None if self._indexed is None else self._indexed.index!r}>"

    async def find(
        self, model: ModelSnapshot, snapshot: ModelSnapshot, catalogue: Catalogue, search: ItemSearch
    ) -> SearchResult:
        """Return what a search finds.

        Args:
            model: The model as published.
            snapshot: The same with rows for new items.
            catalogue: The item catalogue of the snapshot.
            search: What is searched for.

        Raises:
            Unavailable: The first index takes longer than a request may wait.
        """
        if search.text is not None:
            await self._prepare(model)
        async with self._lock:
            return await run_in_daemon_thread(lambda: self._find(snapshot, catalogue, search), "catalogue-search")

    async def _prepare(self, model: ModelSnapshot) -> None:
        """See that there is an index, and that one of this model is built."""
        if (self._indexed is None or not self._indexed.is_of(model)) and self._building is None:
            self._building = asyncio.create_task(self._build(model))
        if self._indexed is None and self._building is not None:
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    await asyncio.shield(self._building)
            except TimeoutError:
                raise Unavailable(
                    "The words of the items are being indexed; try again later.", retry_after_s=1
                ) from None

    async def _build(self, model: ModelSnapshot) -> None:
        try:
            built = await run_in_daemon_thread(lambda: _Indexed(model), "catalogue-indexer")
            async with self._lock:
                self._indexed = built
        finally:
            self._building = None

    def _find(self, snapshot: ModelSnapshot, catalogue: Catalogue, search: ItemSearch) -> SearchResult:
        indexed = self._indexed
        if search.text is None or indexed is None:
            return find(snapshot, None, search)
        indexed.catch_up(snapshot, catalogue)
        return find(snapshot, indexed.index, search)
