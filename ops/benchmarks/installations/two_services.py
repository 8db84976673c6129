"""Lists of one process beside lists of two services, each an installation behind a balancer of its own.

Invariant: both have the same model and the same number of replicas that make lists, and are driven in turns by the same
generator, so that a drift of the machine cancels out. Only the ratios of neighbouring halves are a result.
"""

import asyncio
import contextlib
import secrets
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ops.benchmarks.installations.halves import Half, PairPlan, measure, rng
from ops.benchmarks.workbench import replica_admin_ports, wait_until_archived
from ops.load.http_connection import HttpClient
from ops.load.population import Target, discover
from ops.load.traffic import Mix, Traffic

HEADINGS: Final = ("shape", "p50", "p99", "replicas' CPU", "failed")
ONE, TWO = "one process", "two services"
_FIGURES: Final = ("p50_ms", "p99_ms", "replica_ms")


@dataclass(frozen=True)
class Shape:
    """One installation."""

    name: str
    home: Path
    target: Target


@dataclass
class Comparison:
    """The halves of both shapes, in pairs."""

    halves: dict[str, list[Half]] = field(default_factory=lambda: {ONE: [], TWO: []})

    def figures(self) -> dict[str, Any]:
        """Return medians, failures and the medians of the pairs' ratios as plain values."""
        figures: dict[str, Any] = {}
        for name, halves in self.halves.items():
            figures[name] = {
                **{one: round(statistics.median(getattr(half, one) for half in halves), 3) for one in _FIGURES},
                "requests": sum(half.requests for half in halves),
                "failed": sum(sum(half.failures.values()) for half in halves),
                "failures": [half.failures for half in halves if half.failures],
            }
        pairs = list(zip(self.halves[TWO], self.halves[ONE], strict=True))
        figures["ratios"] = {
            one: round(statistics.median(getattr(two, one) / getattr(single, one) for two, single in pairs), 3)
            for one in _FIGURES
        }
        return figures


async def compare(plan: PairPlan, shapes: tuple[Shape, Shape], on_progress: Callable[[str], None]) -> Comparison:
    """Drive both installations in turns.

    Raises:
        RunError: Events of a half were not archived in time, or no list had a good answer.
    """
    found = Comparison()
    async with contextlib.AsyncExitStack() as stack:
        drives = []
        for shape in shapes:
            client = HttpClient(shape.target.host, shape.target.port, plan.connections)
            stack.push_async_callback(client.aclose)
            traffic = Traffic(
                await discover(client, shape.target, None, shape.home / "models"),
                Mix(),
                rng(plan, "traffic"),
                headers=shape.target.headers,
                base_path="",
                run_id=f"services-{secrets.token_hex(6)}",
            )
            drives.append((shape, client, traffic))
        for index in range(plan.pairs):
            for shape, client, traffic in drives if index % 2 == 0 else reversed(drives):
                found.halves[shape.name].append(await measure(plan, shape.home, client, traffic))
                await asyncio.to_thread(wait_until_archived, replica_admin_ports(shape.home))
            one, two = (found.halves[name][-1] for name in (ONE, TWO))
            on_progress(
                f"pair {index + 1} of {plan.pairs}: p50 {one.p50_ms:.2f} and {two.p50_ms:.2f} ms,"
                f" p99 {one.p99_ms:.1f} and {two.p99_ms:.1f} ms"
            )
    return found


def rows(figures: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield the rows of a table under `HEADINGS`."""
    for name in (ONE, TWO):
        half = figures[name]
        times = (f"{half[one]:.2f} ms" for one in _FIGURES)
        yield name, *times, f"{half['failed']} of {half['requests']}"
    yield "median of the pairs' ratios", *(f"{figures['ratios'][one]:.2f}" for one in _FIGURES), ""
