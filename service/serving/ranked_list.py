"""A ranked list: the answer to its caller and the served event for telemetry (pure)."""

import zlib
from collections.abc import Sequence
from typing import NamedTuple

from service.api import wire
from service.models.scoring import Ranking
from service.models.snapshot import ModelSnapshot
from service.serving.feedback import TENANT
from telemetry.events import Served
from telemetry.ids import rfc3339_ms
from telemetry.served_items import Items, one_or_each


class ListRequest(NamedTuple):
    """What a caller asks for, in ids; `scoring.TopNRequest` is its counterpart in rows of a model.

    Attributes:
        n: How many items to return.
        user_id: The user; None for the popular items.
        offset: How many of the best items to skip.
        exclude: Items never to return.
        include: The only candidates; None for the whole catalogue.
    """

    n: int
    user_id: str | None = None
    offset: int = 0
    exclude: Sequence[str] = ()
    include: Sequence[str] | None = None

    @property
    def candidate_set(self) -> str:
        """The candidates by name: the catalogue or `include`, and `exclude`, each by its count and CRC-32."""
        name = "catalogue" if self.include is None else f"include:{_digest(self.include)}"
        return f"{name};exclude:{_digest(self.exclude)}" if self.exclude else name


class RankedList:
    """The ranking of one model for one request.

    Args:
        asked: The request.
        snapshot: The model.
        ranking: Its ranking.
        source: Where the items come from; an item of a personal list that has no personal score is `popular`.
        candidate_set: What was ranked, by name.
    """

    __slots__ = ("_asked", "_candidate_set", "_item_ids", "_scores", "_snapshot", "_sources")

    def __init__(
        self, asked: ListRequest, snapshot: ModelSnapshot, ranking: Ranking, source: wire.Source, candidate_set: str
    ) -> None:
        self._asked = asked
        self._snapshot = snapshot
        self._candidate_set = candidate_set
        id_of = snapshot.items.id_of
        self._item_ids = [id_of[row] for row in ranking.rows.tolist()]
        self._scores: list[float] = ranking.scores.round(6).tolist()
        self._sources: list[wire.Source] = (
            [source] * ranking.rows.size
            if ranking.is_personal is None
            else [source if is_personal else "popular" for is_personal in ranking.is_personal.tolist()]
        )

    def answer(self, recommendation_id: str, degraded: wire.DegradationLevel | None) -> wire.Recommendations:
        """Return the body of the answer."""
        columns = zip(self._item_ids, self._scores, self._sources, strict=True)
        return {
            "recommendation_id": recommendation_id,
            "user_id": self._asked.user_id,
            "model": self._snapshot.version,
            "items": [{"item_id": item_id, "score": score, "source": source} for item_id, score, source in columns],
            "freshness": {"as_of": self._snapshot.data_as_of},
            "degraded": degraded,
            "shortfall": wire.shortfall(self._asked.n, len(self._item_ids)),
        }

    def event(
        self,
        recommendation_id: str,
        degraded: wire.DegradationLevel | None,
        *,
        request_id: str,
        user_id: str | None,
        served_at_s: float,
        latency_ms: float,
    ) -> Served:
        """Return the event that records the list as served.

        Args:
            recommendation_id: The list's id, which is also the event's.
            degraded: The degradation level, or None.
            request_id: The balancer's id of the request, or the list's own.
            user_id: The user as telemetry knows them; None for a list of no user.
            served_at_s: Seconds since 1970.
            latency_ms: Milliseconds from the first look at the request to the list.
        """
        return Served(
            event_id=recommendation_id,
            tenant=TENANT,
            client_time=None,
            received_at=rfc3339_ms(served_at_s),
            request_id=request_id,
            recommendation_id=recommendation_id,
            user_id=user_id,
            model=self._snapshot.version,
            candidate_set=self._candidate_set,
            latency_ms=latency_ms,
            degraded=degraded,
            # No policy randomises lists, so each item was certain to be shown in its place.
            items=Items(self._item_ids, self._scores, self._asked.offset, one_or_each(self._sources), 1.0),
        )


def _digest(ids: Sequence[str]) -> str:
    return f"{len(ids)}:{zlib.crc32(chr(0).join(ids).encode()):08x}"
