"""The drill's requests: those of the load test, with every acknowledgement recorded by the oracle.

Invariant: the oracle records exactly the acknowledgements that the client received, with their times.
"""

import dataclasses
import itertools
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson

from ops.drill.oracle import Oracle
from ops.load.http_connection import Answer
from ops.load.traffic import AnswerCheck, LoadRequest, Traffic

REFUSED = "refused"
_REFUSAL_STATUSES = frozenset({502, 503, 504})


class ObservedTraffic(Traffic):
    """The load test's traffic with event ids and client times.

    Args:
        oracle: Records every acknowledgement.
        clock: The oracle's clock, in seconds.
        options: The arguments of `Traffic`.
    """

    def __init__(self, *args: Any, oracle: Oracle, clock: Callable[[], float] = time.monotonic, **options: Any) -> None:
        super().__init__(*args, **options)
        self._oracle = oracle
        self._clock = clock
        self._count = itertools.count()

    def next(self) -> LoadRequest:
        """Return the next request; events carry the time, and those of every second request carry ids.

        The service derives the ids of the others from the Idempotency-Key.
        """
        request = super().next()
        if request.kind != "feedback":
            return request
        head, events = _split(request.wire)
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        has_ids = next(self._count) % 2 == 0
        for index, event in enumerate(events):
            event["ts"] = now
            if has_ids:
                event["event_id"] = f"{_key(head)}-own-{index}"
        body = orjson.dumps({"events": events})
        kept = [line for line in head.split("\r\n") if not line.lower().startswith("content-length:")]
        wire = "\r\n".join([*kept, f"Content-Length: {len(body)}", "", ""]).encode() + body
        return dataclasses.replace(request, wire=wire)

    def check_answer(self, request: LoadRequest, answer: Answer) -> AnswerCheck:
        """Check an answer, and record what it acknowledges."""
        check = super().check_answer(request, answer)
        if request.kind == "feedback" and answer.status in _REFUSAL_STATUSES and "retry-after" in answer.headers:
            return dataclasses.replace(check, failure=REFUSED)
        if check.failure is not None:
            return check
        now_s = self._clock()
        if request.kind == "feedback":
            head, events = _split(request.wire)
            for index, event in enumerate(events):
                self._oracle.record_event(event.get("event_id", f"{_key(head)}-{index}"), event, now_s)
        elif (recommendation_id := orjson.loads(answer.body).get("recommendation_id")) is not None:
            self._oracle.record_list(recommendation_id, now_s)
        return check


def _split(wire: bytes) -> tuple[str, list[dict[str, Any]]]:
    """Return a request's head, without the empty line at its end, and the events of its body."""
    head, _, body = wire.partition(b"\r\n\r\n")
    events: list[dict[str, Any]] = orjson.loads(body)["events"]
    return head.decode(), events


def _key(head: str) -> str:
    return next(line.partition(": ")[2] for line in head.split("\r\n") if line.startswith("Idempotency-Key: "))
