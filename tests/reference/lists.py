"""Reference of lists: every item by itself, in plain Python, in the words of docs/api.md."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from service.lists.filters.parsing import parse
from service.lists.list_request import ListRequest
from tests.reference.filters import matches


class ListedItem(NamedTuple):
    """One place of a list."""

    item_id: str
    score: float
    is_pinned: bool


class Shelf(NamedTuple):
    """The items: ids, exact scores (None if an item cannot be scored), popularity ranks, attributes, by row."""

    item_ids: Sequence[str]
    scores: Sequence[float | None]
    popular_ranks: Sequence[int]
    attributes: Sequence[Mapping[str, Any]]
    seen: set[int]
    hidden: set[int]
    seeds: set[int]


def whole_list(shelf: Shelf, request: ListRequest) -> list[ListedItem]:
    """Return all places of a list, without its offset and pages."""
    rows = range(len(shelf.item_ids))
    excluded = {row for row in rows if shelf.item_ids[row] in request.exclude} | shelf.hidden | shelf.seeds
    pins = {
        pin.position: row
        for pin in request.pins
        for row in rows
        if shelf.item_ids[row] == pin.item_id and row not in excluded
    }
    ranked = []
    for row in rows:
        score = shelf.scores[row]
        if row in excluded or row in shelf.seen or row in pins.values() or score is None:
            continue
        if request.include is not None and shelf.item_ids[row] not in request.include:
            continue
        if request.filter is not None and not _matches(shelf, row, request.filter):
            continue
        factor = 1.0
        for boost in request.boosts:
            factor *= boost.factor if _matches(shelf, row, boost.filter) else 1.0
        ranked.append((-(score * factor if score >= 0 else score / factor), shelf.popular_ranks[row], row))
    ranked.sort()
    listed: list[ListedItem] = []
    waiting = sorted(pins)
    for negative, _, row in ranked:
        while waiting and waiting[0] <= len(listed):
            listed.append(_pinned(shelf, pins[waiting.pop(0)]))
        listed.append(ListedItem(shelf.item_ids[row], -negative, is_pinned=False))
    return listed + [_pinned(shelf, pins[position]) for position in waiting]


def _pinned(shelf: Shelf, row: int) -> ListedItem:
    return ListedItem(shelf.item_ids[row], shelf.scores[row] or 0.0, is_pinned=True)


def _matches(shelf: Shelf, row: int, text: str) -> bool:
    return matches(parse(text).expression, shelf.attributes[row])
