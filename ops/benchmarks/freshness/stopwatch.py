"""Probes of live lists: an event posted at the edge, then every replica asked directly until its list reflects it.

Invariant: the delay of a replica is the time from the request that posted the event to the replica's last list without
it; 0 if there was none. A replica that gives no list, because it restarts, is late only if a list that it gives
afterwards lacks the event.
"""

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

import orjson

from ops.load.http_connection import Answer, HttpClient
from ops.load.population import Target
from service.errors import RunError

_EVENTS_OF_A_USER: Final = 50
_LIST_LENGTH: Final = 100
_ACCEPTED_WITHIN_S: Final = 15.0
_RETRY_JITTER_S: Final = (0.010, 0.050)
_RETRIED: Final = frozenset({502, 503, 504})
_EVENT_CONNECTIONS: Final = 4
_REPLICA_CONNECTIONS: Final = 8


@dataclass(frozen=True)
class Probe:
    """One event.

    Attributes:
        user_id: Its user.
        posted_s: Monotonic time at which the accepted request was sent.
        delays_s: By replica: seconds until its last list without the event.
        late: Replicas whose list still lacked the event at the deadline.
    """

    user_id: str
    posted_s: float
    delays_s: Mapping[str, float]
    late: tuple[str, ...] = ()


@dataclass
class Stopwatch:
    """Posts events and asks replicas.

    Args:
        target: The edge.
        replicas: Returns the ports of the replicas by name, as they are now.
        items: The items to report, ids of the model.
        run_id: Begins the names of users and events.
        every_s: The pause between two questions to a replica.
        deadline_s: How long a replica may take.
    """

    target: Target
    replicas: Callable[[], Mapping[str, int]]
    items: tuple[str, ...]
    run_id: str
    every_s: float = 0.01
    deadline_s: float = 30.0
    users: list[str] = field(default_factory=list)
    _place: int = 0
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    _rng: random.Random = field(default_factory=lambda: random.Random(1))  # noqa: S311  # jitter, not secrets
    _edge: HttpClient | None = None
    _clients: dict[int, HttpClient] = field(default_factory=dict)

    async def probe(self, *, new_user: bool = False) -> Probe:
        """Post an event and wait until all replicas reflect it, or the deadline."""
        number = next(self._numbers)
        if new_user or self._place == _EVENTS_OF_A_USER or not self.users:
            self.users.append(f"{self.run_id}-{number}")
            self._place = 0
        # Of a user of before, as a person acts more than once, and with another item each time.
        user_id, place = self.users[-1], self._place
        self._place += 1
        item_id = self.items[place % len(self.items)]
        posted_s = await self._post(user_id, item_id, f"{self.run_id}-event-{number}")
        names = sorted(self.replicas())
        watched = (self._watch(name, user_id, item_id, place + 1, posted_s) for name in names)
        found = await asyncio.gather(*watched)
        delays = dict(zip(names, found, strict=True))
        return Probe(
            user_id,
            posted_s,
            {name: self.deadline_s if delay is None else delay for name, delay in delays.items()},
            tuple(name for name, delay in delays.items() if delay is None),
        )

    async def known(self, port: int, user_id: str) -> dict[str, Any] | None:
        """Return what a replica knows of a user, with the user's list as `items`; None if it gives no answer."""
        name = quote(user_id, safe="")
        known = await self._ask(port, f"/v1/users/{name}?n=500")
        listed = await self._ask(port, f"/v1/recommendations/{name}?n={_LIST_LENGTH}")
        return None if known is None or listed is None else {**known, "items": listed["items"]}

    async def erase(self, user_id: str) -> float:
        """Erase a user at the edge; return the seconds until no replica knows anything of the user.

        Raises:
            RunError: The request was refused, or a replica still knew the user at the deadline.
        """
        sent_s = time.monotonic()
        head = f"DELETE /v1/users/{quote(user_id, safe='')} HTTP/1.1\r\n{self.target.headers}\r\n"
        answer = await self._at_edge().exchange(head.encode())
        if not isinstance(answer, Answer) or answer.status != 202:
            raise RunError(f"The erasure of a user was not accepted: {answer}")
        for name in sorted(self.replicas()):
            while (known := await self.known(self.replicas().get(name, 0), user_id)) is None or known["n_events"]:
                if time.monotonic() > sent_s + self.deadline_s:
                    raise RunError(f"{name} still knew an erased user after {self.deadline_s:g} s.")
                await asyncio.sleep(self.every_s)
        return time.monotonic() - sent_s

    async def aclose(self) -> None:
        """Close all connections; no probe may be open."""
        for client in (*self._clients.values(), *([] if self._edge is None else [self._edge])):
            await client.aclose()
        self._clients.clear()
        self._edge = None

    async def _post(self, user_id: str, item_id: str, event_id: str) -> float:
        body = orjson.dumps(
            {"events": [{"event_id": event_id, "type": "rating", "user_id": user_id, "item_id": item_id, "value": 4}]}
        )
        head = (
            f"POST /v1/events HTTP/1.1\r\n{self.target.headers}Content-Type: application/json\r\n"
            f"Idempotency-Key: {event_id}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        until_s = time.monotonic() + _ACCEPTED_WITHIN_S
        while time.monotonic() < until_s:
            sent_s = time.monotonic()
            answer = await self._at_edge().exchange(head.encode() + body)
            if isinstance(answer, Answer) and answer.status not in _RETRIED:
                if answer.status != 202:
                    raise RunError(f"An event was answered {answer.status}: {answer.body.decode(errors='replace')}")
                return sent_s
            await asyncio.sleep(self._rng.uniform(*_RETRY_JITTER_S))
        raise RunError(f"An event was not accepted within {_ACCEPTED_WITHIN_S:g} s.")

    def _at_edge(self) -> HttpClient:
        if self._edge is None:
            self._edge = HttpClient(self.target.host, self.target.port, _EVENT_CONNECTIONS)
        return self._edge

    async def _watch(self, name: str, user_id: str, item_id: str, n_events: int, posted_s: float) -> float | None:
        """Return the seconds until a replica's last list without the event; None if it was late."""
        stale_s = posted_s
        path = f"/v1/recommendations/{quote(user_id, safe='')}?n={_LIST_LENGTH}"
        while time.monotonic() < posted_s + self.deadline_s:
            port = self.replicas().get(name)
            answer = None if port is None else await self._ask(port, path)
            if answer is not None:
                listed = {item["item_id"] for item in answer["items"]}
                if answer["freshness"]["events_applied"] >= n_events and item_id not in listed:
                    return stale_s - posted_s
                stale_s = time.monotonic()
            await asyncio.sleep(self.every_s)
        return None

    async def _ask(self, port: int, path: str) -> dict[str, Any] | None:
        client = self._clients.get(port)
        if client is None:
            client = self._clients[port] = HttpClient("127.0.0.1", port, _REPLICA_CONNECTIONS)
        answer = await client.exchange(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        if not isinstance(answer, Answer) or answer.status != 200:
            return None
        found: dict[str, Any] = orjson.loads(answer.body)
        return found
