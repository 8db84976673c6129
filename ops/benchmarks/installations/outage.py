"""Lists with Redis stopped against normal ones, on an installation through its balancer.

Invariant: an open loop at one rate, in pairs of halves whose order alternates. A half begins when the events of the
half before are archived, so that neither pays for the other. Only the ratios of neighbouring halves are a result.
"""

import asyncio
import contextlib
import secrets
import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ops.benchmarks.installations.halves import Half, PairPlan, measure, rng
from ops.benchmarks.workbench import replica_admin_ports, wait_until_archived
from ops.load.http_connection import HttpClient
from ops.load.population import Target, discover
from ops.load.traffic import Mix, Traffic


@dataclass
class Pairs:
    """All halves, in pairs."""

    normal: list[Half] = field(default_factory=list)
    away: list[Half] = field(default_factory=list)

    def ratios(self, name: str) -> list[float]:
        """Return the ratio of each pair, without Redis to normal, of `p50_ms`, `p99_ms` or `replica_ms`."""
        return [
            getattr(away, name) / getattr(normal, name) for away, normal in zip(self.away, self.normal, strict=True)
        ]

    def figures(self) -> dict[str, Any]:
        """Return ratios, medians and failures as plain values."""
        figures: dict[str, Any] = {
            "p50_ratio": round(statistics.median(self.ratios("p50_ms")), 3),
            "p99_ratio": round(statistics.median(self.ratios("p99_ms")), 3),
            "replica_ratio": round(statistics.median(self.ratios("replica_ms")), 3),
            "p50_ratios": [round(ratio, 3) for ratio in self.ratios("p50_ms")],
            "p99_ratios": [round(ratio, 3) for ratio in self.ratios("p99_ms")],
        }
        for name, halves in (("normal", self.normal), ("away", self.away)):
            figures[name] = {
                "p50_ms": round(statistics.median(half.p50_ms for half in halves), 3),
                "p99_ms": round(statistics.median(half.p99_ms for half in halves), 3),
                "replica_ms": round(statistics.median(half.replica_ms for half in halves), 3),
                "requests": sum(half.requests for half in halves),
                "failed": sum(sum(half.failures.values()) for half in halves),
                "failures": [half.failures for half in halves if half.failures],
            }
        return figures


async def compare(
    plan: PairPlan,
    home: Path,
    target: Target,
    without_redis: Callable[[], AbstractContextManager[None]],
    on_progress: Callable[[str], None],
) -> Pairs:
    """Drive every half at the balancer of an installation; `without_redis` returns a context without Redis.

    Raises:
        RunError: Events of a half were not archived in time.
    """
    pairs = Pairs()
    client = HttpClient(target.host, target.port, plan.connections)
    try:
        population = await discover(client, target, None, home / "models")
        traffic = Traffic(
            population,
            Mix(),
            rng(plan, "traffic"),
            headers=target.headers,
            base_path="",
            run_id=f"outage-{secrets.token_hex(6)}",
        )

        for index in range(plan.pairs):
            for away in (False, True) if index % 2 == 0 else (True, False):
                with without_redis() if away else contextlib.nullcontext():
                    (pairs.away if away else pairs.normal).append(await measure(plan, home, client, traffic))
                await asyncio.to_thread(wait_until_archived, replica_admin_ports(home))
            normal, gone = pairs.normal[-1], pairs.away[-1]
            on_progress(
                f"pair {index + 1} of {plan.pairs}: p50 {normal.p50_ms:.2f} and {gone.p50_ms:.2f} ms without Redis,"
                f" p99 {normal.p99_ms:.1f} and {gone.p99_ms:.1f} ms"
            )
    finally:
        await client.aclose()
    return pairs


def rows(figures: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield the rows of a table: half, p50, p99, the replicas' processor time per request, failed."""
    for name, title in (("normal", "normal"), ("away", "Redis stopped")):
        half = figures[name]
        times = (f"{half[field]:.2f} ms" for field in ("p50_ms", "p99_ms", "replica_ms"))
        yield title, *times, f"{half['failed']} of {half['requests']}"
    ratios = (f"{figures[f'{field}_ratio']:.3f}" for field in ("p50", "p99", "replica"))
    yield "median of the pairs' ratios", *ratios, ""
