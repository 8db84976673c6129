"""Several times the peak of an installation, through its balancer: goodput and refusals.

Invariant: the same generator measures peak and overload in turns, so that only their ratio is a result; between rounds
the archive catches up. `broken_promises`, which is pure, checks the promises under overload.
"""

import asyncio
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final
from urllib.parse import quote

from ops.benchmarks.installations.open_loop import (
    KindTally,
    LoadRound,
    RawKind,
    RawRequest,
    run_closed_loop,
    run_open_loop,
)
from ops.benchmarks.workbench import HOST

# One request in 7 reports an event, one in 97 is a check of liveness and one in 101 of readiness.
_EVENT_EACH: Final = 7
_HEALTH_EACH: Final = 97
_READY_EACH: Final = 101
_MS_PER_S: Final = 1e3
_EVENT: Final = b'{"events":[{"type":"click","user_id":"%s","item_id":"1"}]}'


@dataclass(frozen=True, kw_only=True)
class OverloadPlan:
    """The options of a run; `factor` is the overload as a multiple of the peak."""

    pairs: int
    seconds: float
    factor: float
    peak_connections: int
    connections: int


@dataclass
class OverloadResult:
    """All rounds, in pairs."""

    peaks: list[LoadRound] = field(default_factory=list)
    overloads: list[LoadRound] = field(default_factory=list)

    @property
    def goodput_ratio(self) -> float:
        """The median of the pairs' ratios, goodput under overload to the peak."""
        return statistics.median(
            over.goodput_rps() / peak.goodput_rps() for peak, over in zip(self.peaks, self.overloads, strict=True)
        )

    def figures(self) -> dict[str, Any]:
        """Return the ratio, the rates and the tallies as plain values."""
        return {
            "goodput_ratio": round(self.goodput_ratio, 3),
            "peak_rps": [round(one.goodput_rps(), 1) for one in self.peaks],
            "offered_rps": [round(one.offered_rps(), 1) for one in self.overloads],
            "goodput_rps": [round(one.goodput_rps(), 1) for one in self.overloads],
            "kinds": {kind: _kind_json([one.tallies[kind] for one in self.overloads]) for kind in KINDS},
        }


KINDS: Final[tuple[RawKind, ...]] = ("list", "event", "health", "ready")
HEADINGS: Final = ("kind", "due", "unsent", "good", "static", "refused", "failed", "p99 ms", "refused in")


def requests(users: Sequence[str]) -> list[RawRequest]:
    """Return the requests of a round: lists of these users, with events and checks between them."""
    found: list[RawRequest] = []
    for number, user in enumerate(users, 1):
        if number % _HEALTH_EACH == 0:
            found.append(RawRequest("health", f"GET /healthz HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()))
        elif number % _READY_EACH == 0:
            found.append(RawRequest("ready", f"GET /readyz HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()))
        elif number % _EVENT_EACH == 0:
            body = _EVENT % user.encode()
            head = f"POST /v1/events HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
            found.append(RawRequest("event", f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body))
        else:
            path = f"/v1/recommendations/{quote(user, safe='')}?n=10"
            found.append(RawRequest("list", f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()))
    return found


async def measure(
    plan: OverloadPlan,
    port: int,
    requests: Sequence[RawRequest],
    settle: Callable[[], None],
    on_progress: Callable[[str], None],
) -> OverloadResult:
    """Drive an installation at its peak and beyond it, in turns."""
    result = OverloadResult()
    # The first round is a warm-up.
    await run_closed_loop(HOST, port, requests, connections=plan.peak_connections, duration_s=min(2.0, plan.seconds))
    for number in range(1, plan.pairs + 1):
        peak = await run_closed_loop(HOST, port, requests, connections=plan.peak_connections, duration_s=plan.seconds)
        await asyncio.to_thread(settle)
        over = await run_open_loop(
            HOST,
            port,
            requests,
            rate_rps=plan.factor * peak.goodput_rps(),
            connections=plan.connections,
            duration_s=plan.seconds,
        )
        await asyncio.to_thread(settle)
        result.peaks.append(peak)
        result.overloads.append(over)
        on_progress(
            f"pair {number} of {plan.pairs}: peak {peak.goodput_rps():,.0f}/s; of {over.offered_rps():,.0f}/s offered"
            f" {over.goodput_rps():,.0f}/s were answered"
        )
    return result


def broken_promises(rounds: Sequence[LoadRound]) -> Iterator[str]:
    """Yield a sentence for each promise that did not hold; none depends on the speed of the machine."""
    tallies = {kind: [one.tallies[kind] for one in rounds] for kind in KINDS}
    # An answer about readiness has a second, so that it depends on the speed of the machine.
    lists, events, health = (_sum(tallies[kind]) for kind in KINDS if kind != "ready")
    for kind, tally in (("lists", lists), ("events", events)):
        if others := {status: count for status, count in tally.statuses.items() if status not in _EXPECTED}:
            yield f"{kind} were answered with other statuses than 2xx, 429 and 503: {dict(sorted(others.items()))}"
        if tally.unexplained:
            yield f"{tally.unexplained} refusals of {kind} had no Retry-After"
        if tally.broken:
            yield f"{tally.broken} connections of {kind} were cut instead of an answer"
    if lists.static:
        yield f"{lists.static} lists were static although replicas were ready"
    if health.statuses.keys() - {200}:
        yield f"health was answered {dict(sorted(health.statuses.items()))}"
    if _refused_share(events) > _refused_share(lists):
        yield f"{_refused_share(events):.1%} of the events were refused, and {_refused_share(lists):.1%} of the lists"


_EXPECTED: Final = frozenset({200, 202, 429, 503})


def _refused_share(tally: KindTally) -> float:
    answered = tally.good + tally.refused
    return tally.refused / answered if answered else 0.0


def _sum(tallies: Sequence[KindTally]) -> KindTally:
    total = KindTally()
    for one in tallies:
        for name in (each.name for each in fields(KindTally)):
            setattr(total, name, getattr(total, name) + getattr(one, name))
    return total


def _kind_json(tallies: Sequence[KindTally]) -> dict[str, Any]:
    total = _sum(tallies)
    return {
        "due": total.due,
        "unsent": total.unsent,
        "good": total.good,
        "static": total.static,
        "refused": total.refused,
        "failed": total.failed,
        "statuses": dict(sorted(total.statuses.items())),
        "served_p99_ms": _p99_ms(total.served_s),
        "refused_p99_ms": _p99_ms(total.refused_s),
    }


def _p99_ms(times_s: Sequence[float]) -> float | None:
    return round(_MS_PER_S * sorted(times_s)[int(0.99 * (len(times_s) - 1))], 2) if times_s else None


def rows(figures: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return the rows of a table of the kinds, under `HEADINGS`."""
    names = ("due", "unsent", "good", "static", "refused", "failed")
    return [
        (
            kind,
            *(f"{figures['kinds'][kind][name]:,}" for name in names),
            *(
                "-" if (value := figures["kinds"][kind][name]) is None else f"{value:.1f}"
                for name in ("served_p99_ms", "refused_p99_ms")
            ),
        )
        for kind in KINDS
    ]
