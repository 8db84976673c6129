"""Requests that arrive in the same turn of the event loop are ranked together.

Invariant: a list is the same, to the last bit, whether it was ranked alone or among others
(`service.models.scoring`). A request waits for the turn it arrived in and for no timer, so alone it waits for nothing.
"""

import asyncio
from collections.abc import Sequence
from itertools import groupby
from typing import Final, NamedTuple

from service.models import scoring
from service.models.snapshot import ModelSnapshot

# Scores held at a time: enough lists to pay for reading the item factors, and few enough to stay in a core's cache.
_SCORES: Final = 1 << 17
_LEAST: Final = 8
_MOST: Final = 32


class _Waiting(NamedTuple):
    snapshot: ModelSnapshot
    wanted: scoring.TopNRequest
    ranked: asyncio.Future[scoring.Ranking]


class Batcher:
    """Ranks personal lists, those of one turn of the event loop together."""

    def __init__(self) -> None:
        self._waiting: list[_Waiting] = []

    async def personal(self, snapshot: ModelSnapshot, wanted: scoring.TopNRequest) -> scoring.Ranking:
        """Rank one list."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            # Behind everything that is ready now: the other requests of this turn.
            loop.call_soon(self._rank)
        ranked: asyncio.Future[scoring.Ranking] = loop.create_future()
        self._waiting.append(_Waiting(snapshot, wanted, ranked))
        return await ranked

    def _rank(self) -> None:
        waiting, self._waiting = self._waiting, []
        # A swap may come between two requests of one turn, so those ranked together share a model.
        for snapshot, group in groupby(waiting, key=lambda entry: entry.snapshot):
            entries = list(group)
            size = min(_MOST, max(_LEAST, _SCORES // max(1, len(snapshot.items))))
            for start in range(0, len(entries), size):
                _rank_together(snapshot, entries[start : start + size])


def _rank_together(snapshot: ModelSnapshot, entries: Sequence[_Waiting]) -> None:
    try:
        rankings = scoring.personal(snapshot, [entry.wanted for entry in entries])
    except Exception as error:  # noqa: BLE001 (it belongs to the requests that wait for it; the boundary tells it)
        for entry in entries:
            if not entry.ranked.done():
                entry.ranked.set_exception(error)
        return
    for entry, ranking in zip(entries, rankings, strict=True):
        if not entry.ranked.done():
            entry.ranked.set_result(ranking)
