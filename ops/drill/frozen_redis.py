"""Compares the latencies of lists with Redis frozen and running, in pairs of runs (R20).

Invariant: the runs of a pair follow each other directly, in alternating order, so that other work of the machine
affects both. The median of the pairs' ratios is compared with the limits.
"""

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ops.drill.drill_load import DrillLoad, RequestSample
from ops.drill.faults.fault import Injection
from ops.drill.faults.promise import Promise
from ops.drill.faults.signal_faults import freeze
from ops.drill.figures import answer_figures
from ops.drill.oracle import Oracle
from ops.drill.system.drilled_system import REDIS, DrilledSystem
from ops.load.population import Target
from service.errors import RunError

P50_LIMIT, P99_LIMIT = 1.05, 1.25
# Both runs of a pair begin after the system has adapted to the change.
_SETTLE_S = 3.0
_PROMISE = Promise(text="no request fails")


@dataclass(frozen=True)
class RunPair:
    """Latencies of lists in milliseconds, with Redis running and frozen, and the failed requests of both runs."""

    running_p50_ms: float
    running_p99_ms: float
    frozen_p50_ms: float
    frozen_p99_ms: float
    failed: int


@dataclass(frozen=True)
class FrozenRedisComparison:
    """All pairs."""

    pairs: tuple[RunPair, ...]

    @property
    def p50_ratio(self) -> float:
        """The median over the pairs of frozen to running."""
        return statistics.median(pair.frozen_p50_ms / pair.running_p50_ms for pair in self.pairs)

    @property
    def p99_ratio(self) -> float:
        """The median over the pairs of frozen to running."""
        return statistics.median(pair.frozen_p99_ms / pair.running_p99_ms for pair in self.pairs)

    @property
    def ok(self) -> bool:
        """Whether both ratios are within their limits, and no request failed."""
        within = self.p50_ratio <= P50_LIMIT and self.p99_ratio <= P99_LIMIT
        return within and not any(pair.failed for pair in self.pairs)

    def as_json(self) -> dict[str, Any]:
        """Return the object that `chaos --compare-telemetry --json` prints."""
        return {
            "ok": self.ok,
            "p50_ratio": round(self.p50_ratio, 4),
            "p99_ratio": round(self.p99_ratio, 4),
            "pairs": [asdict(pair) for pair in self.pairs],
        }

    def as_lines(self) -> list[str]:
        """Return a line for each pair, and one for their medians."""
        lines = [
            f"pair {number}: p50 {pair.running_p50_ms:.2f} ms running, {pair.frozen_p50_ms:.2f} ms frozen; "
            f"p99 {pair.running_p99_ms:.2f} ms running, {pair.frozen_p99_ms:.2f} ms frozen; {pair.failed} failed"
            for number, pair in enumerate(self.pairs, 1)
        ]
        medians = (
            f"frozen to running, median: p50 {self.p50_ratio:.3f} (at most {P50_LIMIT}), "
            f"p99 {self.p99_ratio:.3f} (at most {P99_LIMIT}): {'PASS' if self.ok else 'BREACH'}"
        )
        return [*lines, medians]


async def compare_frozen_redis(
    system: DrilledSystem,
    target: Target,
    *,
    pairs: int,
    run_s: float,
    rate_rps: float,
    seed: int,
    notify: Callable[[str], None],
) -> FrozenRedisComparison:
    """Run pairs of runs of `run_s` each, and call `notify` with the line of each pair.

    The system needs a Redis of its own.

    Raises:
        RunError: The system does not answer, or a run had no list.
    """
    start_s = time.monotonic()
    found: list[RunPair] = []
    injection = Injection(0.0, (REDIS,), run_s, 0.0)
    async with DrillLoad(target, system.home / "models", rate_rps, seed, start_s, Oracle()) as load:

        async def running() -> list[RequestSample]:
            return await _lists_of_run(load, start_s, run_s)

        async def frozen() -> list[RequestSample]:
            async with freeze(system, injection):
                return await _lists_of_run(load, start_s, run_s)

        for index in range(pairs):
            if index % 2:
                with_redis, without = await running(), await frozen()
            else:
                without, with_redis = await frozen(), await running()
            found.append(_pair(with_redis, without))
            notify(FrozenRedisComparison(tuple(found)).as_lines()[index])
    return FrozenRedisComparison(tuple(found))


async def _lists_of_run(load: DrillLoad, start_s: float, run_s: float) -> list[RequestSample]:
    """Return the requests for lists of one run that had ended by then."""
    await asyncio.sleep(_SETTLE_S)
    from_s = time.monotonic() - start_s
    await asyncio.sleep(run_s)
    to_s = time.monotonic() - start_s
    return [sample for sample in load.samples if from_s <= sample.at_s < to_s and sample.kind == "recommend"]


def _pair(running: Sequence[RequestSample], frozen: Sequence[RequestSample]) -> RunPair:
    both = [answer_figures(samples, _PROMISE) for samples in (running, frozen)]
    p50s, p99s = [one.p50_ms for one in both], [one.p99_ms for one in both]
    if p50s[0] is None or p50s[1] is None or p99s[0] is None or p99s[1] is None:
        raise RunError("A run of the comparison had no answered list.")
    failed = sum(sum(one.failures.values()) for one in both)
    return RunPair(p50s[0], p99s[0], p50s[1], p99s[1], failed)
