"""The latency of short lists at the edge: one request after another, as the page of one visitor asks.

Invariant: a request goes through nginx on a connection that stays open, and kinds of requests alternate, so that the
machine's other work falls on all alike.
"""

import contextlib
import http.client
import json
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ops.benchmarks.workbench import HOST
from service.errors import RunError
from service.models.snapshot import ModelSnapshot

KNOWN: Final = "known user"
SESSION: Final = "new user, with a session"
FEATURES: Final = "new user, with features"
HEADINGS: Final = ("request", "p50", "p99", "slowest", "requests")
_SESSION_ITEMS: Final = 3
_POPULAR_ITEMS: Final = 200
_WARMUP: Final = 50
_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, kw_only=True)
class EdgePlan:
    """The options of a run: so many requests of each kind for lists of n items."""

    n: int
    requests: int
    seed: int


@dataclass
class EdgeResult:
    """Latencies in milliseconds by kind of request."""

    latencies_ms: dict[str, list[float]]

    def figures(self) -> dict[str, Any]:
        """Return percentiles as plain values."""
        return {
            kind: {
                "p50_ms": round(float(np.percentile(times, 50)), 3),
                "p99_ms": round(float(np.percentile(times, 99)), 3),
                "max_ms": round(max(times), 3),
                "requests": len(times),
            }
            for kind, times in self.latencies_ms.items()
        }

    def worst_p99_ms(self) -> float:
        """Return the largest 99th percentile of all kinds."""
        return max(float(np.percentile(times, 99)) for times in self.latencies_ms.values())


def bodies(model: ModelSnapshot, plan: EdgePlan) -> dict[str, list[bytes]]:
    """Draw the requests of each kind that the model answers to.

    New users have ids of their own, so that nothing is kept of one.
    """
    draw = random.Random(plan.seed)  # noqa: S311  # chance that can be repeated, not secrets
    popular = [model.items.id_of[row] for row in model.popular_rows[:_POPULAR_ITEMS]]
    size = min(_SESSION_ITEMS, len(popular))
    known = [{"user_id": draw.choice(model.users.id_of)} for _ in range(plan.requests)]
    sessions = [{"session": draw.sample(popular, size)} for _ in range(plan.requests)]
    drawn: dict[str, list[dict[str, Any]]] = {KNOWN: known, SESSION: sessions}
    encoder = None if model.networks is None else model.networks.features
    columns = () if encoder is None else tuple(column for column in encoder.users if column.texts)
    if columns:
        drawn[FEATURES] = [
            {"user_features": {column.name: draw.choice(column.texts) for column in columns}}
            for _ in range(plan.requests)
        ]
    return {
        kind: [
            json.dumps({"user_id": f"new-{number}", "n": plan.n, **each}).encode()
            for number, each in enumerate(requests)
        ]
        for kind, requests in drawn.items()
    }


def measure(plan: EdgePlan, port: int, requests: dict[str, list[bytes]]) -> EdgeResult:
    """Send the requests of all kinds in turns.

    Args:
        port: The balancer's.
        requests: Bodies of POST /v1/recommendations, by kind.

    Raises:
        RunError: An answer is no list of that length, or is degraded.
    """
    result = EdgeResult({kind: [] for kind in requests})
    with contextlib.closing(http.client.HTTPConnection(HOST, port, timeout=_TIMEOUT_S)) as connection:
        for drawn in requests.values():
            for body in drawn[:_WARMUP]:
                _ask(connection, body, plan.n)
        for number in range(plan.requests):
            for kind, drawn in requests.items():
                result.latencies_ms[kind].append(_ask(connection, drawn[number], plan.n))
    return result


def _ask(connection: http.client.HTTPConnection, body: bytes, n: int) -> float:
    """Return how long an answer took, in milliseconds."""
    started_s = time.perf_counter()
    connection.request("POST", "/v1/recommendations", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    text = answer.read()
    took_ms = 1e3 * (time.perf_counter() - started_s)
    if answer.status != 200:
        raise RunError(f"The service answered {answer.status}: {text.decode(errors='replace')[:200]}")
    listed = json.loads(text)
    if len(listed["items"]) != n or listed["degraded"] is not None:
        raise RunError(f"A list has {len(listed['items'])} items, degraded {listed['degraded']!r}.")
    return took_ms


def rows(figures: dict[str, Any]) -> Iterator[Sequence[str]]:
    """Yield the rows of a table under `HEADINGS`."""
    for kind, one in figures.items():
        times = (f"{one[key]:.2f} ms" for key in ("p50_ms", "p99_ms", "max_ms"))
        yield (kind, *times, str(one["requests"]))
