"""Ranks the requests of one turn of the event loop together.

Invariant: a list is the same to the last bit whether it is ranked by itself, in a batch
(`service.models.ranking.personal_lists`) or was ranked before. A request waits for the end of its turn and for no
timer.
"""

import asyncio
from collections.abc import Sequence
from itertools import groupby
from typing import Final, NamedTuple

from service.models.ranking import personal_lists
from service.models.ranking.scoring import Ranking, TopNRequest
from service.models.snapshot import ModelSnapshot
from service.serving.ranking.kept_rankings import PLACES, KeptRankings, first, fits

# Scores per batch: enough lists to pay for reading the item factors, and few enough to fit a core's cache.
_BATCH_SCORES: Final = 1 << 17
_MIN_BATCH_LISTS: Final = 8
_MAX_BATCH_LISTS: Final = 32


class _Waiting(NamedTuple):
    snapshot: ModelSnapshot
    top_n: TopNRequest
    ranked: asyncio.Future[Ranking]


class Batcher:
    """Ranks personal lists in batches."""

    def __init__(self) -> None:
        self._waiting: list[_Waiting] = []
        self._kept = KeptRankings()

    def personal(self, snapshot: ModelSnapshot, top_n: TopNRequest) -> asyncio.Future[Ranking]:
        """Rank one list: await the result, which is there at the end of this turn."""
        loop = asyncio.get_running_loop()
        ranked: asyncio.Future[Ranking] = loop.create_future()
        if fits(top_n) and (kept := self._kept.find(snapshot, top_n)) is not None:
            ranked.set_result(kept)
            return ranked
        if not self._waiting:
            # The loop runs this callback after all callbacks that are ready now, which are the requests of this turn.
            loop.call_soon(self._rank_waiting)
        self._waiting.append(_Waiting(snapshot, top_n, ranked))
        return ranked

    def _rank_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        # A swap may come between two requests of one turn, and a batch has one model.
        for snapshot, group in groupby(waiting, key=lambda entry: entry.snapshot):
            entries = list(group)
            size = min(_MAX_BATCH_LISTS, max(_MIN_BATCH_LISTS, _BATCH_SCORES // max(1, len(snapshot.items))))
            for start in range(0, len(entries), size):
                self._rank_batch(snapshot, entries[start : start + size])

    def _rank_batch(self, snapshot: ModelSnapshot, entries: Sequence[_Waiting]) -> None:
        # A longer list costs little more, and serves a later request for more items.
        requests = [entry.top_n._replace(n=PLACES) if fits(entry.top_n) else entry.top_n for entry in entries]
        try:
            rankings = personal_lists.personal(snapshot, requests)
        except Exception as error:  # noqa: BLE001 (raised in each waiting request, where the boundary handles it)
            for entry in entries:
                if not entry.ranked.done():
                    entry.ranked.set_exception(error)
            return
        for entry, ranking in zip(entries, rankings, strict=True):
            if fits(entry.top_n):
                self._kept.keep(snapshot, entry.top_n.user_row, ranking)
            if not entry.ranked.done():
                entry.ranked.set_result(first(ranking, entry.top_n.n))
