"""A ranked list: the answer to its caller and the served event for telemetry (pure)."""

from collections.abc import Sequence

from service.api import user_wire, wire
from service.api.shortfalls import shortfall
from service.catalogue.catalogue import Catalogue
from service.lists.explanations import Explanation
from service.lists.list_request import ListRequest
from service.lists.pipeline import MadeList
from service.lists.request_user import feature_use
from service.live.live_users import LiveUser
from service.models.snapshot import ModelSnapshot
from service.security.api_key import TENANT
from telemetry.events import Served
from telemetry.ids import rfc3339_ms
from telemetry.served_items import Items, one_or_each


class RankedList:
    """A list that was made for a request, with the snapshot and the catalogue that it was made from.

    `live` is the user, if the list reflects live events.
    """

    __slots__ = ("_catalogue", "_item_ids", "_live", "_made", "_scores", "_snapshot", "list_request")

    def __init__(
        self,
        list_request: ListRequest,
        snapshot: ModelSnapshot,
        made: MadeList,
        catalogue: Catalogue,
        live: LiveUser | None = None,
    ) -> None:
        self._live = live
        self.list_request = list_request
        self._made = made
        self._snapshot = snapshot
        self._catalogue = catalogue
        id_of = snapshot.items.id_of
        self._item_ids = [id_of[row] for row in made.rows]
        self._scores: list[float] = made.scores.round(6).tolist()

    def answer(self, recommendation_id: str, degraded: wire.DegradationLevel | None) -> wire.Recommendations:
        """Return the body of the answer."""
        columns = zip(self._item_ids, self._scores, self._made.sources, strict=True)
        items: list[wire.Item] = [
            {"item_id": item_id, "score": score, "source": source} for item_id, score, source in columns
        ]
        if names := self.list_request.fields:
            for item, row in zip(items, self._made.rows, strict=True):
                item["fields"] = self._catalogue.fields(row, names)
        if self.list_request.explain:
            explanations: Sequence[Explanation | None] = self._made.explanations or [None] * len(items)
            for item, explanation in zip(items, explanations, strict=True):
                item["because"] = None if explanation is None else self._because(explanation)
        found: wire.Recommendations = {
            "recommendation_id": recommendation_id,
            "user_id": self.list_request.user_id,
            "model": self._snapshot.version,
            "items": items,
            "freshness": user_wire.freshness(self._snapshot.data_as_of, self._live),
            "degraded": degraded,
            "shortfall": shortfall(self.list_request.n, len(self._item_ids), self._made.shortfall),
            "next_page_token": (
                self._made.page.token_of_next(self.list_request.kind, self._item_ids) if self._made.has_more else None
            ),
        }
        if self.list_request.user_features:
            use = feature_use(self._snapshot, self._catalogue, self.list_request)
            found["user_features"] = {"used": use.used, "unknown": use.unknown}
        return found

    def _because(self, explanation: Explanation) -> wire.Because:
        names = self.list_request.fields
        items: list[wire.BecauseItem] = []
        for row, share in explanation.items:
            items.append({"item_id": self._snapshot.items.id_of[row], "share": round(share, 6)})
            if names:
                items[-1]["fields"] = self._catalogue.fields(row, names)
        # Without the sign of a rounded 0.
        others, base = round(explanation.others, 6) + 0.0, round(explanation.base, 6) + 0.0
        return {"items": items, "others": others, "base": base}

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
            catalogue_watermark=self._catalogue.recorded_watermark or None,
            request=self.list_request.as_fields,
            latency_ms=latency_ms,
            degraded=degraded,
            items=Items(
                self._item_ids,
                self._scores,
                self._made.page.place,
                one_or_each(self._made.sources),
                1.0 if self._made.propensities is None else self._made.propensities.tolist(),
            ),
        )
