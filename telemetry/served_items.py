"""The items of a served list, in an event and in its line.

Since schema 2 a line holds them as columns:

    {"item_id": ["318", ...], "score": [4.71, ...], "position": 0, "source": "personal", "propensity": 1.0}

Ids and scores are arrays of one length. `position` is that of the first item, and positions are consecutive; `source`
and `propensity` are the same for all items. Otherwise an array of that length replaces the one value. Schema 1 holds an
object for each item, five times as long.

Invariant: `Items.from_rows(rows).rows() == rows` for any rows of schema 1. Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypedDict, TypeVar, cast

from telemetry.errors import BadEventError

COLUMNS: Final = ("item_id", "score", "position", "source", "propensity")
_NUMBER: Final = frozenset({int, float})
_TYPES: Final = {
    "item_id": frozenset({str}),
    "score": _NUMBER,
    "position": frozenset({int}),
    "source": frozenset({str}),
    "propensity": _NUMBER,
}
_ROW: Final = ("item_id", "position", "score", "source", "propensity")

_T = TypeVar("_T")


class ServedItem(TypedDict):
    """One item of a served list; `propensity` is the probability with which it was shown."""

    item_id: str
    position: int
    score: float
    source: str
    propensity: float


@dataclass(frozen=True, slots=True)
class Items:
    """The items of a list, best first.

    Attributes:
        item_id: The ids.
        score: Of each item.
        position: Of the first item, or of each.
        source: Of all items, or of each.
        propensity: Of all items, or of each.
    """

    item_id: Sequence[str] = field(default_factory=list)
    score: Sequence[float] = field(default_factory=list)
    position: int | Sequence[int] = 0
    source: str | Sequence[str] = ""
    propensity: float | Sequence[float] = 1.0

    def __len__(self) -> int:
        return len(self.item_id)

    @classmethod
    def from_rows(cls, rows: Sequence[ServedItem]) -> "Items":
        """Return the columns of items as schema 1 has them."""
        if not rows:
            return cls()
        positions = [row["position"] for row in rows]
        first = positions[0]
        follow = positions == list(range(first, first + len(rows)))
        return cls(
            [row["item_id"] for row in rows],
            [row["score"] for row in rows],
            first if follow else positions,
            one_or_each([row["source"] for row in rows]),
            one_or_each([row["propensity"] for row in rows]),
        )

    @classmethod
    def from_fields(cls, fields: Any) -> "Items":
        """Return the items of the field `items` of a line, checked.

        Raises:
            BadEventError: A column is missing or malformed; the message names it.
        """
        if type(fields) is not dict:
            raise BadEventError("Field 'items' of the served event is of the wrong type.")
        try:
            columns = [fields[name] for name in COLUMNS]
        except KeyError as error:
            raise BadEventError(f"The items of the served event have no column {error}.") from None
        n = len(columns[0]) if type(columns[0]) is list else 0
        for name, column in zip(COLUMNS, columns, strict=True):
            if type(column) is list:
                good = len(column) == n and _TYPES[name].issuperset(map(type, column))
            else:
                good = name not in ("item_id", "score") and type(column) in _TYPES[name]
            if not good:
                raise BadEventError(f"Column {name!r} of the items of the served event is of the wrong type or length.")
        return cls(*columns)

    def as_fields(self) -> dict[str, object]:
        """Return the field `items` of a line."""
        return {
            "item_id": self.item_id,
            "score": self.score,
            "position": self.position,
            "source": self.source,
            "propensity": self.propensity,
        }

    def rows(self) -> list[ServedItem]:
        """Return the items as schema 1 has them, an object for each."""
        n = len(self)
        positions = range(self.position, self.position + n) if isinstance(self.position, int) else self.position
        sources = [self.source] * n if isinstance(self.source, str) else self.source
        propensities = [self.propensity] * n if isinstance(self.propensity, int | float) else self.propensity
        columns = zip(self.item_id, positions, self.score, sources, propensities, strict=True)
        return [cast("ServedItem", dict(zip(_ROW, column, strict=True))) for column in columns]


def check_rows(rows: Sequence[Any]) -> None:
    """Check the items of a line of schema 1.

    Raises:
        BadEventError: An item is malformed.
        KeyError: An item lacks a field.
    """
    for row in rows:
        if type(row) is not dict:
            raise BadEventError("An item of the served event is not a JSON object.")
        for name in _ROW:
            if type(row[name]) not in _TYPES[name]:
                raise BadEventError(f"Field {name!r} of an item of the served event is of the wrong type.")


def one_or_each(values: Sequence[_T]) -> _T | Sequence[_T]:
    """Return the value that all items share, or the values of each."""
    if not values:
        return values
    # 1 and 1.0 are equal, but differ as text in a line.
    same = values.count(values[0]) == len(values) and len(set(map(type, values))) == 1
    return values[0] if same else values
