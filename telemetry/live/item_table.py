"""The last change of each item: the live state of the item catalogue.

Invariant: the table is a function of the set of changes it was given. Of two changes of an item the one with the larger
(received_at, producer, epoch, seq) stays, so that neither the order of arrival nor repetition counts, and every replica
holds the same. A removed item keeps its last change, by which an older one that arrives later is recognised.
Pure; on disk the table is the lines of the changes (`events.encode`), one after the other.
"""

from collections.abc import Iterator
from typing import TypeAlias

from telemetry.batch import Position
from telemetry.events import ItemChange, Record, decode

Order: TypeAlias = tuple[str, str, int, int]
"""received_at, producer, epoch, seq."""


def order_of(record: Record) -> Order:
    """Return the order of a record among the changes of one item."""
    return record.event.received_at, record.producer, record.epoch, record.seq


class ItemTable:
    """The last changes, by item."""

    def __init__(self) -> None:
        self._records: dict[str, Record] = {}
        self.positions: dict[str, Position] = {}
        """By producer: the largest position of a change that was applied."""
        self.revision = 0
        """How many changes have been applied."""

    def __len__(self) -> int:
        return len(self._records)

    def apply(self, record: Record) -> bool:
        """Apply a change; returns whether it is the item's last one. Other events are ignored."""
        event = record.event
        if not isinstance(event, ItemChange):
            return False
        position = Position(record.epoch, record.seq)
        self.positions[record.producer] = max(position, self.positions.get(record.producer, position))
        known = self._records.get(event.item_id)
        if known is not None and order_of(known) >= order_of(record):
            return False
        self._records[event.item_id] = record
        self.revision += 1
        return True

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._records

    def item_ids(self) -> list[str]:
        """Return the items that were changed, by item id."""
        return sorted(self._records)

    def record(self, item_id: str) -> Record | None:
        """Return the record of the last change of an item; None if there was none."""
        return self._records.get(item_id)

    def get(self, item_id: str) -> ItemChange | None:
        """Return the last change of an item; None if there was none."""
        record = self._records.get(item_id)
        return record.event if record is not None and isinstance(record.event, ItemChange) else None

    def changes(self) -> Iterator[ItemChange]:
        """Yield the last change of each item, by item id."""
        for item_id in sorted(self._records):
            event = self._records[item_id].event
            if isinstance(event, ItemChange):
                yield event

    def records(self) -> list[Record]:
        """Return the records of the last changes, by item id."""
        return [self._records[item_id] for item_id in sorted(self._records)]

    def copy(self) -> "ItemTable":
        """Return a copy, which another thread may read."""
        other = ItemTable()
        other._records, other.positions, other.revision = dict(self._records), dict(self.positions), self.revision
        return other

    @classmethod
    def from_bytes(cls, content: bytes) -> "ItemTable":
        """Return the table of changes, given their lines one after the other.

        Raises:
            BadEventError: A line is not an event.
        """
        table = cls()
        for line in content.splitlines():
            table.apply(decode(line))
        return table
