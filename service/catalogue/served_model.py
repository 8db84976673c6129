"""A model as a replica serves it: with the item catalogue, and with rows for the items that it was not trained on.

Invariant: a function of the model and the item changes, so that every replica serves the same rows. New items are in
the order of their ids. Pure; time is proportional to the items, so it is built off the event loop.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.catalogue.catalogue import Catalogue, Columns, live_columns, model_columns, overlaid
from service.catalogue.extended_snapshot import extended
from service.catalogue.live_items import LiveItems
from service.catalogue.new_items import NewItemModel
from service.catalogue.raters import Raters, RaterState, UserRows, liking_rows
from service.models.items.record import NO_RECORD, AttributeValue, ItemRecord
from service.models.snapshot import ModelSnapshot
from telemetry.events import ItemChange
from telemetry.pseudonym import Pseudonymiser

REMOVED: Final = ItemRecord(hidden=True)


class ServedModel:
    """One state of a model and the changes of items.

    Args:
        model: The model as published.
        items: The last change of each item; not changed meanwhile.
        before: The state before, whose work is used again if it is of the same model.
        raters: Who did what with items that the model does not know.
        pseudonyms: Map the model's users to those of events.

    Attributes:
        model: The model as published.
        snapshot: The model with rows for new items; the model itself if there are none.
        catalogue: The item catalogue of the snapshot's rows.
        revision: That of the changes.
        raters_revision: That of the raters.

    Raises:
        ModelRefused: The model's catalogue is damaged.
    """

    def __init__(
        self,
        model: ModelSnapshot,
        items: LiveItems | None = None,
        before: "ServedModel | None" = None,
        raters: RaterState | None = None,
        pseudonyms: Pseudonymiser | None = None,
    ) -> None:
        self.model: Final = model
        items = items or LiveItems()
        changes = items.changes()
        self.revision: Final = items.revision
        raters = raters or RaterState({}, {})
        self.raters_revision: Final = raters.revision
        if before is not None and before.model is not model:
            before = None
        n = len(model.items)
        self._base: Columns = model_columns(model.item_records) if before is None else before._base  # noqa: SLF001
        row_of = model.items.row_of
        # A removed item that the model does not know needs no row.
        new_ids = [change.item_id for change in changes if change.item_id not in row_of and change.kind == "put"]
        new_row_of = {item_id: row for row, item_id in enumerate(new_ids, n)}
        live: dict[int, ItemRecord] = {}
        for change in changes:
            row = row_of.get(change.item_id, new_row_of.get(change.item_id))
            if row is not None:
                live[row] = record_of(change, model, row)
        columns = live_columns(self._base, n, live, n + len(new_ids))
        self._written: Mapping[int, Mapping[str, AttributeValue]] = {
            row: record.attributes for row, record in live.items() if row < n
        }
        self._new_items: NewItemModel | None = None
        self._users: UserRows | None = None if before is None else before._users  # noqa: SLF001
        self.snapshot: ModelSnapshot = model
        raters_watermark = ""
        if new_ids:
            if before is not None and before._new_items is not None and before._written == self._written:  # noqa: SLF001
                self._new_items = before._new_items  # noqa: SLF001
            else:
                self._new_items = NewItemModel(model, columns)
            raters_watermark = raters.watermark(new_ids)
            likers = self._likers(new_ids, raters.raters, pseudonyms or Pseudonymiser())
            attributes = [live[row].attributes for row in range(n, n + len(new_ids))]
            self.snapshot = extended(model, self._new_items.rows(new_ids, columns, likers, attributes))
            _ = self.snapshot.popular_ranks, self.snapshot.item_norms
        self.catalogue: Catalogue = Catalogue(
            self.snapshot.items,
            model.item_records,
            live,
            columns,
            n_model_rows=n,
            watermark=items.watermark,
            raters_watermark=raters_watermark,
        )

    def _likers(self, new_ids: list[str], raters: Raters, pseudonyms: Pseudonymiser) -> dict[int, NDArray[np.int64]]:
        """Return who likes the new items, by number of the item."""
        found: dict[int, NDArray[np.int64]] = {}
        for number, item_id in enumerate(new_ids):
            if actions := raters.get(item_id):
                if self._users is None:
                    self._users = UserRows(self.model.users.id_of, pseudonyms)
                rows = liking_rows(actions, self._users, self.model)
                if rows.size:
                    found[number] = rows
        return found

    def __repr__(self) -> str:
        return f"<ServedModel {self.model.version} {self.catalogue!r}>"


def record_of(change: ItemChange | None, model: ModelSnapshot, row: int | None) -> ItemRecord:
    """Return the record that an item has after a change.

    Args:
        change: The last change of the item; None if there was none.
        model: The model as published.
        row: The item's row in the snapshot; None if it has none.
    """
    published = NO_RECORD
    if row is not None and row < len(model.items) and model.item_records is not None:
        published = model.item_records.record(row)
    if change is None:
        return published
    if change.kind == "delete":
        return REMOVED
    written = ItemRecord(
        change.title,
        change.attributes or {},
        change.hidden,
        _unix_s(change.available_from),
        _unix_s(change.available_until),
    )
    return overlaid(published, written, has_attributes=change.attributes is not None)


def _unix_s(text: str | None) -> float | None:
    return None if text is None else datetime.fromisoformat(text).timestamp()
