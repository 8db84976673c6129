"""The item changes that one replica knows: those of the feed, and its own that the feed has yet to deliver.

Invariant: after the feed has passed the position of an accepted change, only what the feed delivered counts. So every
replica arrives at the same state, even if a client's retry was archived under another position. Pure.
"""

from collections.abc import Iterable, Mapping, Sequence

from telemetry.batch import EventPosition, Position
from telemetry.events import ItemChange, Record
from telemetry.live.item_table import ItemTable, order_of
from telemetry.live.state_watermark import marks_text


class LiveItems:
    """The last change of each item.

    Attributes:
        revision: Grows whenever the last change of an item differs.
    """

    def __init__(self) -> None:
        self._table = ItemTable()
        self._pending: dict[str, Record] = {}
        self.revision = 0

    def __len__(self) -> int:
        return len(self._table) + sum(item_id not in self._table for item_id in self._pending)

    def __repr__(self) -> str:
        return f"<LiveItems {len(self._table)} pending={len(self._pending)}>"

    def load(self, table: ItemTable) -> set[str]:
        """Add the state of a snapshot to what the feed delivered; returns the items whose state changed."""
        changed = {item_id for record in table.records() if (item_id := self._apply(record)) is not None}
        self.revision += bool(changed)
        return changed

    def apply(self, records: Iterable[Record], marks: Mapping[str, Position]) -> set[str]:
        """Apply what the feed delivered up to its marks; returns the items whose state changed."""
        changed = {item_id for record in records if (item_id := self._apply(record)) is not None}
        for item_id, record in list(self._pending.items()):
            mark = marks.get(record.producer)
            if mark is not None and Position(record.epoch, record.seq) <= mark:
                del self._pending[item_id]
                if self._table.get(item_id) != record.event:
                    changed.add(item_id)
        self.revision += bool(changed)
        return changed

    def accept(self, changes: Sequence[ItemChange], first: EventPosition) -> set[str]:
        """Apply changes that this replica accepted, the first at this position and the others behind it."""
        changed: set[str] = set()
        for seq, change in enumerate(changes, first.seq):
            record = Record(change, first.producer, first.epoch, seq)
            known = self._last(change.item_id)
            if known is None or order_of(known) < order_of(record):
                self._pending[change.item_id] = record
                changed.add(change.item_id)
        self.revision += bool(changed)
        return changed

    def get(self, item_id: str) -> ItemChange | None:
        """Return the last change of an item; None if there was none."""
        record = self._last(item_id)
        return record.event if record is not None and isinstance(record.event, ItemChange) else None

    def changes(self) -> list[ItemChange]:
        """Return the last change of each item, by item id."""
        if not self._pending:
            return list(self._table.changes())
        ids = sorted({*self._table.item_ids(), *self._pending})
        return [change for item_id in ids if (change := self.get(item_id)) is not None]

    def copy(self) -> "LiveItems":
        """Return a copy, which another thread may read."""
        other = LiveItems()
        other._table, other._pending, other.revision = self._table.copy(), dict(self._pending), self.revision
        return other

    @property
    def watermark(self) -> str:
        """The largest position of each producer among the changes: `producer:epoch-seq`, by commas."""
        found = dict(self._table.positions)
        for record in self._pending.values():
            position = Position(record.epoch, record.seq)
            found[record.producer] = max(position, found.get(record.producer, position))
        return marks_text(found)

    def _apply(self, record: Record) -> str | None:
        """Apply a change; returns the item if its state changed."""
        event = record.event
        if not isinstance(event, ItemChange):
            return None
        before = self.get(event.item_id)
        self._table.apply(record)
        own = self._pending.get(event.item_id)
        if own is not None and own[1:] == record[1:]:
            del self._pending[event.item_id]
        return None if self.get(event.item_id) == before else event.item_id

    def _last(self, item_id: str) -> Record | None:
        known, own = self._table.record(item_id), self._pending.get(item_id)
        if known is None or own is None:
            return known or own
        return max(known, own, key=order_of)
