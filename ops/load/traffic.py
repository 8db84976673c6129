"""The requests of a load test, and the checks of their answers; pure.

Invariant: a seed gives the same users, kinds and events. Only the lists that feedback refers to depend on earlier
answers.
"""

import itertools
import random
from collections import deque
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import orjson

from ops.load.http_connection import Answer
from ops.load.outcome import Kind, UserClass
from ops.load.population import Population

LIST_LENGTH = 10
MAX_EVENTS = 20
_ZIPF_EXPONENT = 1.1
_UNKNOWN_USERS = 10_000
_REMEMBERED_LISTS = 512
# Frequencies of event types, per hundred.
_EVENT_TYPES = {"impression": 40, "view": 25, "click": 20, "rating": 10, "purchase": 3, "dismiss": 2}


@dataclass(frozen=True)
class Mix:
    """Shares of the requests, each from 0 to 1; those of the three classes of users sum to 1.

    Attributes:
        feedback: Requests that report events; the others ask for a list.
        known: Users of the training data, drawn evenly.
        unknown: Users without data.
        hot: Users of the training data drawn by a Zipf law, so that a few recur often.
    """

    feedback: float = 0.15
    known: float = 0.6
    unknown: float = 0.1
    hot: float = 0.3


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """One request in its wire format; `expected` is the number of items, or of events to be accepted."""

    kind: Kind
    user_class: UserClass
    user_id: str
    wire: bytes
    expected: int


@dataclass(frozen=True, slots=True)
class AnswerCheck:
    """The check of an answer; `failure` is None for a good one."""

    failure: str | None = None
    detail: str | None = None
    degraded: str | None = None
    shortfall: bool = False
    events: int = 0


@dataclass(frozen=True, slots=True)
class _Served:
    """A served list for feedback to refer to."""

    user_class: UserClass
    user_id: str
    recommendation_id: str
    item_ids: tuple[str, ...]


class Traffic:
    """The stream of requests of one test.

    Args:
        headers: Header lines of every request, each with its line break; see `Target.headers`.
        base_path: See `Target`.
        run_id: Prefix of idempotency keys and unknown users, unique to a run, `[A-Za-z0-9_-]{1,40}`.
    """

    def __init__(
        self, population: Population, mix: Mix, rng: random.Random, *, headers: str, base_path: str, run_id: str
    ) -> None:
        self._population = population
        self._mix = mix
        self._rng = rng
        self._head = f"{headers}User-Agent: recollect-loadtest\r\nAccept: application/json\r\n"
        self._base_path = base_path
        self._run_id = run_id
        self._keys = itertools.count()
        self._served: deque[_Served] = deque(maxlen=_REMEMBERED_LISTS)
        # Shuffled, so that the hot users are not the first of the file or model.
        self._ranked = rng.sample(population.users, len(population.users))
        ranks = range(1, len(self._ranked) + 1)
        self._rank_weights = list(itertools.accumulate(rank**-_ZIPF_EXPONENT for rank in ranks))

    def next(self) -> LoadRequest:
        """Return the next request."""
        if self._rng.random() < self._mix.feedback:
            return self._feedback()
        user_class, user_id = self._user()
        path = f"{self._base_path}/v1/recommendations/{quote(user_id, safe='')}?n={LIST_LENGTH}"
        return LoadRequest(
            "recommend", user_class, user_id, f"GET {path} HTTP/1.1\r\n{self._head}\r\n".encode(), LIST_LENGTH
        )

    def check_answer(self, request: LoadRequest, answer: Answer) -> AnswerCheck:
        """Check an answer, and keep a served list for later feedback."""
        expected_status = 200 if request.kind == "recommend" else 202
        if answer.status != expected_status:
            excerpt = answer.body[:200].decode("utf-8", "replace")
            return AnswerCheck(f"status_{answer.status}", f"{request.kind} was answered {answer.status}: {excerpt}")
        try:
            body = orjson.loads(answer.body)
        except orjson.JSONDecodeError as error:
            return AnswerCheck("body", f"{request.kind} was answered with a body that is not JSON: {error}")
        if not isinstance(body, dict):
            return AnswerCheck("body", f"{request.kind} was answered with JSON that is not an object")
        if request.kind == "feedback":
            if body.get("accepted") != request.expected:
                return AnswerCheck("body", f"{request.expected} events were sent, {body.get('accepted')!r} accepted")
            return AnswerCheck(events=request.expected)
        if (fault := _list_fault(request, body)) is not None:
            return AnswerCheck("body", fault)
        degraded = body.get("degraded") or answer.headers.get("x-degraded")
        if body["recommendation_id"] is not None and body["items"]:
            item_ids = tuple(item["item_id"] for item in body["items"])
            self._served.append(_Served(request.user_class, request.user_id, body["recommendation_id"], item_ids))
        return AnswerCheck(degraded=degraded, shortfall=body.get("shortfall") is not None)

    def _user(self) -> tuple[UserClass, str]:
        draw = self._rng.random()
        if not self._ranked or draw < self._mix.unknown:
            return "unknown", f"{self._run_id}-{self._rng.randrange(_UNKNOWN_USERS)}"
        if draw < self._mix.unknown + self._mix.hot:
            return "hot", self._rng.choices(self._ranked, cum_weights=self._rank_weights)[0]
        return "known", self._rng.choice(self._population.users)

    def _feedback(self) -> LoadRequest:
        count = self._rng.randint(1, MAX_EVENTS)
        if self._served:
            served = self._served[self._rng.randrange(len(self._served))]
            user_class, user_id = served.user_class, served.user_id
            events = [self._event_about(served) for _ in range(count)]
        else:
            user_class, user_id = self._user()
            events = [self._event(user_id, self._rng.choice(self._population.items)) for _ in range(count)]
        body = orjson.dumps({"events": events})
        head = (
            f"POST {self._base_path}/v1/events HTTP/1.1\r\n{self._head}Content-Type: application/json\r\n"
            f"Idempotency-Key: {self._run_id}-{next(self._keys):08d}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return LoadRequest("feedback", user_class, user_id, head.encode() + body, count)

    def _event_about(self, served: _Served) -> dict[str, Any]:
        position = self._rng.randrange(len(served.item_ids))
        event = self._event(served.user_id, served.item_ids[position])
        return event | {"recommendation_id": served.recommendation_id, "position": position}

    def _event(self, user_id: str, item_id: str) -> dict[str, Any]:
        (type_,) = self._rng.choices(list(_EVENT_TYPES), weights=list(_EVENT_TYPES.values()))
        event: dict[str, Any] = {"type": type_, "user_id": user_id, "item_id": item_id}
        return event | {"value": float(self._rng.randint(1, 5))} if type_ == "rating" else event


def _list_fault(request: LoadRequest, body: dict[str, Any]) -> str | None:
    """Return the first fault of a list answered with 200, or None."""
    items = body.get("items")
    if not isinstance(items, list) or not all(
        isinstance(item, dict) and isinstance(item.get("item_id"), str) for item in items
    ):
        return "the answer has no list of items with ids"
    item_ids = [item["item_id"] for item in items]
    if len(set(item_ids)) != len(item_ids):
        return "the list names an item twice"
    if body.get("degraded") == "static":
        # nginx's static list is the same for every user: it has no user, no id and its published length.
        body.setdefault("recommendation_id", None)
        return None if items else "the static list is empty"
    if body.get("user_id") != request.user_id:
        return f"the answer to user {request.user_id!r} is about user {body.get('user_id')!r}"
    if not isinstance(body.get("recommendation_id"), str):
        return "the list has no recommendation_id"
    if len(items) > request.expected or (len(items) < request.expected and body.get("shortfall") is None):
        return f"{request.expected} items were asked for, {len(items)} came and no shortfall was stated"
    return None
