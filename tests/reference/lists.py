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
    """The items: ids, exact scores (None if an item cannot be scored), popularity ranks, attributes, by row.

    With a ranker there are its scores, too, and the number of candidates that it orders together.
    """

    item_ids: Sequence[str]
    scores: Sequence[float | None]
    popular_ranks: Sequence[int]
    attributes: Sequence[Mapping[str, Any]]
    seen: set[int]
    hidden: set[int]
    seeds: set[int]
    ranker_scores: Sequence[float] | None = None
    n_candidates: int = 0


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
        ranked.append((-_boosted(score, factor), shelf.popular_ranks[row], row, factor))
    ranked.sort()
    if shelf.ranker_scores is not None:
        for start in range(0, len(ranked), shelf.n_candidates):
            block = ranked[start : start + shelf.n_candidates]
            new = [(-_boosted(shelf.ranker_scores[row], factor), rank, row, factor) for _, rank, row, factor in block]
            ranked[start : start + shelf.n_candidates] = sorted(new)
    listed: list[ListedItem] = []
    waiting = sorted(pins)
    for negative, _, row, _ in ranked:
        while waiting and waiting[0] <= len(listed):
            listed.append(_pinned(shelf, pins[waiting.pop(0)]))
        listed.append(ListedItem(shelf.item_ids[row], -negative, is_pinned=False))
    return listed + [_pinned(shelf, pins[position]) for position in waiting]


def _boosted(score: float, factor: float) -> float:
    return score * factor if score >= 0 else score / factor


def _pinned(shelf: Shelf, row: int) -> ListedItem:
    score = shelf.scores[row] if shelf.ranker_scores is None else shelf.ranker_scores[row]
    return ListedItem(shelf.item_ids[row], score or 0.0, is_pinned=True)


def _matches(shelf: Shelf, row: int, text: str) -> bool:
    return matches(parse(text).expression, shelf.attributes[row])
