"""Pins: items with a fixed place in a list."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple


class PinnedRow(NamedTuple):
    """An item with its place in the list, from 0."""

    position: int
    row: int


class Place(NamedTuple):
    """One place of a list: an item, and its index among the ranked ones; None if it is pinned."""

    row: int
    ranked_index: int | None


def arrange(ranked: Sequence[int], pinned: Sequence[PinnedRow], first: int, n: int) -> list[Place]:
    """Return up to n places of a list, from place `first` on.

    A pinned item takes its place, or the first one here if its place is before; the ranked items fill the others in
    their order. Pinned items whose place the list does not reach follow the last ranked one.

    Args:
        ranked: The other items, best first.
        pinned: In any order; none is among `ranked`.
        first: The place of the first item.
        n: The number of places.
    """
    return list(islice(_places(ranked, sorted(pinned), first), n))


def _places(ranked: Sequence[int], pinned: Sequence[PinnedRow], place: int) -> Iterator[Place]:
    next_pin = 0
    for index, row in enumerate(ranked):
        while next_pin < len(pinned) and pinned[next_pin].position <= place:
            yield Place(pinned[next_pin].row, None)
            next_pin += 1
            place += 1
        yield Place(row, index)
        place += 1
    for pin in pinned[next_pin:]:
        yield Place(pin.row, None)
