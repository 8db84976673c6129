"""A ranked list: the answer to its caller and the served event for telemetry (pure)."""

import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from service.api import wire
from service.catalogue.catalogue import Catalogue
from service.live.live_users import LiveUser
from service.models.scoring import Ranking
from service.models.snapshot import ModelSnapshot
from service.security.api_key import TENANT
from telemetry.events import Served
from telemetry.ids import rfc3339_ms
from telemetry.served_items import Items, one_or_each


class ListRequest(NamedTuple):
    """A list as a caller asks for it, in ids; `scoring.TopNRequest` is its counterpart in rows of a model.

    Attributes:
        n: How many items to return.
        user_id: The user; None for the popular items.
        offset: How many of the best items to skip.
        exclude: Items never to return.
        include: The only candidates; None for the whole catalogue.
        similar_to: The item whose nearest items are asked for, or None.
        fields: What the answer shows of each item besides its place.
    """

    n: int
    user_id: str | None = None
    offset: int = 0
    exclude: Sequence[str] = ()
    include: Sequence[str] | None = None
    similar_to: str | None = None
    fields: Sequence[str] = ()

    @property
    def candidate_set(self) -> str:
        """The candidates by name; `include` and `exclude` are given by count and CRC-32."""
        if self.similar_to is not None:
            return f"similar:{self.similar_to}"
        name = "catalogue" if self.include is None else f"include:{_digest(self.include)}"
        return f"{name};exclude:{_digest(self.exclude)}" if self.exclude else name

    @property
    def as_fields(self) -> dict[str, Any]:
        """The request as plain JSON, without the user and without what was not asked for."""
        fields: dict[str, Any] = {"n": self.n}
        if self.offset:
            fields["offset"] = self.offset
        if self.exclude:
            fields["exclude"] = list(self.exclude)
        if self.include is not None:
            fields["include"] = list(self.include)
        if self.similar_to is not None:
            fields["similar_to"] = self.similar_to
        return fields


class RankedList:
    """The ranking of a model for a request; an item of a personal list without a personal score is `popular`.

    The catalogue, which a request with fields needs, is that of the snapshot; `live` is the user, if the list reflects
    live events.
    """

    __slots__ = ("_catalogue", "_item_ids", "_live", "_rows", "_scores", "_snapshot", "_sources", "list_request")

    def __init__(
        self,
        list_request: ListRequest,
        snapshot: ModelSnapshot,
        ranking: Ranking,
        source: wire.Source,
        catalogue: Catalogue | None = None,
        live: LiveUser | None = None,
    ) -> None:
        self._catalogue = catalogue
        self._live = live
        self.list_request = list_request
        self._snapshot = snapshot
        id_of = snapshot.items.id_of
        self._rows: list[int] = ranking.rows.tolist()
        self._item_ids = [id_of[row] for row in self._rows]
        self._scores: list[float] = ranking.scores.round(6).tolist()
        self._sources: list[wire.Source] = (
            [source] * ranking.rows.size
            if ranking.is_personal is None
            else [source if is_personal else "popular" for is_personal in ranking.is_personal.tolist()]
        )

    def answer(self, recommendation_id: str, degraded: wire.DegradationLevel | None) -> wire.Recommendations:
        """Return the body of the answer."""
        columns = zip(self._item_ids, self._scores, self._sources, strict=True)
        items: list[wire.Item] = [
            {"item_id": item_id, "score": score, "source": source} for item_id, score, source in columns
        ]
        if self._catalogue is not None and (names := self.list_request.fields):
            for item, row in zip(items, self._rows, strict=True):
                item["fields"] = self._catalogue.fields(row, names)
        return {
            "recommendation_id": recommendation_id,
            "user_id": self.list_request.user_id,
            "model": self._snapshot.version,
            "items": items,
            "freshness": {"as_of": self._snapshot.data_as_of, "events_applied": 0}
            if self._live is None
            else {"as_of": self._live.as_of, "events_applied": self._live.events_applied},
            "degraded": degraded,
            "shortfall": wire.shortfall(self.list_request.n, len(self._item_ids)),
        }

    def event(
        self,
        recommendation_id: str,
        degraded: wire.DegradationLevel | None,
        *,
        request_id: str,
        pseudonym: str | None,
        served_at_s: float,
        latency_ms: float,
    ) -> Served:
        """Return the event that records the list as served to the user with this pseudonym."""
        return Served(
            event_id=recommendation_id,
            tenant=TENANT,
            client_time=None,
            received_at=rfc3339_ms(served_at_s),
            request_id=request_id,
            recommendation_id=recommendation_id,
            user_id=pseudonym,
            model=self._snapshot.version,
            candidate_set=self.list_request.candidate_set,
            state_watermark=None if self._live is None else self._live.watermark,
            events_applied=0 if self._live is None else self._live.events_applied,
            request=self.list_request.as_fields,
            latency_ms=latency_ms,
            degraded=degraded,
            # The propensity is 1: lists are not randomised.
            items=Items(self._item_ids, self._scores, self.list_request.offset, one_or_each(self._sources), 1.0),
        )


def _digest(ids: Sequence[str]) -> str:
    return f"{len(ids)}:{zlib.crc32(chr(0).join(ids).encode()):08x}"
