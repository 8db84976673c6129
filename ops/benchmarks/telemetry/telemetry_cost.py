"""The processor time of telemetry, against redis-py alone in the same run: rounds, medians, objectives.

Invariant: every round has processes of its own on one core, with Redis on the other, and measures each figure once; a
figure is the median over the rounds. Ratios and microseconds are results, rates are not.
"""

import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ops.benchmarks.measured_process import run_measured
from ops.benchmarks.telemetry.acceptance import AcceptanceTask, AcceptanceTimes
from ops.benchmarks.telemetry.archiving import Archiving, ArchivingTask
from ops.benchmarks.telemetry.event_cost import Cost, CostTask
from ops.benchmarks.telemetry.processor import awake
from ops.benchmarks.workbench import pinned

RATES: Final = (500.0, 1_000.0, 3_000.0, 10_000.0)
ACCEPT_RATES: Final = (200.0, 3_000.0)


@dataclass(frozen=True, kw_only=True)
class CostPlan:
    """The rounds, the seconds at each rate, and the events of an unpaced loop."""

    rounds: int
    seconds: float
    events: int


@dataclass(frozen=True, kw_only=True)
class CostObjectives:
    """Two upper bounds on microseconds per event, and a lower one on events archived per second; None for none."""

    offer_us: float | None = None
    total_us: float | None = None
    archived_per_s: float | None = None


JUDGED_RATE: Final = "3000"


@dataclass
class CostRounds:
    """The results of all rounds."""

    costs: list[Cost] = field(default_factory=list)
    acceptances: list[AcceptanceTimes] = field(default_factory=list)
    archivings: list[Archiving] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """Return the medians over the rounds and their ratios to the yardstick, as plain values."""
        cost = {name: _median(self.costs, name) for name in ("encode_us", "pipeline_us", "batches_us", "offer_us")}
        total_us = _medians([one.total_us for one in self.costs])
        peak_us = _median(self.costs, "peak_us")
        archived, counted = (_median(self.archivings, name) for name in ("archived_per_s", "counted_per_s"))
        return {
            "line_bytes": round(_median(self.costs, "line_bytes")),
            **{name: round(value, 2) for name, value in cost.items()},
            "total_us": {rate: round(value, 2) for rate, value in total_us.items()},
            "total_us_rounds": [one.total_us for one in self.costs],
            "peak_us": round(peak_us, 2),
            "peak_per_s": round(_median(self.costs, "peak_per_s")),
            "ratio_to_pipeline": {
                rate: round(value / cost["pipeline_us"], 2) for rate, value in {**total_us, "peak": peak_us}.items()
            },
            "accept_p50_ms": {
                rate: round(value, 2) for rate, value in _medians([one.p50_ms for one in self.acceptances]).items()
            },
            "accept_p99_ms": {
                rate: round(value, 2) for rate, value in _medians([one.p99_ms for one in self.acceptances]).items()
            },
            "archived_per_s": round(archived),
            "counted_per_s": round(counted),
            "ratio_to_counting": round(archived / counted, 3),
            "dropped": sum(one.dropped for one in self.costs),
            "refused": sum(one.refused for one in self.acceptances),
        }


def measure(plan: CostPlan, redis_url: str, scratch: Path, core: int, on_progress: Callable[[str], None]) -> CostRounds:
    """Measure every round on one core, with a Redis on another core and a directory on a real disk.

    Raises:
        RunError: A measured process failed.
    """
    rounds = CostRounds()
    for index in range(plan.rounds):
        spool, feedback, archive = (str(scratch / f"{name}-{index}") for name in ("spool", "feedback", "archive"))
        with pinned({core}):
            with awake(core):
                cost = CostTask(
                    redis_url=redis_url, directory=spool, rates=RATES, seconds=plan.seconds, events=plan.events
                )
                rounds.costs.append(run_measured("ops.benchmarks.telemetry.event_cost", cost, Cost))
                archiving = ArchivingTask(redis_url=redis_url, directory=archive, events=3 * plan.events)
                rounds.archivings.append(run_measured("ops.benchmarks.telemetry.archiving", archiving, Archiving))
            # On a core that may sleep: these times are the disk's.
            acceptance = AcceptanceTask(
                redis_url=redis_url, directory=feedback, rates=ACCEPT_RATES, seconds=plan.seconds
            )
            rounds.acceptances.append(run_measured("ops.benchmarks.telemetry.acceptance", acceptance, AcceptanceTimes))
        on_progress(
            f"round {index + 1} of {plan.rounds}: {rounds.costs[-1].total_us[JUDGED_RATE]:.1f} us an event at"
            f" {JUDGED_RATE}/s, {rounds.archivings[-1].archived_per_s:,.0f} events/s archived"
        )
    return rounds


def missed(figures: Mapping[str, Any], objectives: CostObjectives) -> Iterator[str]:
    """Yield a sentence for each objective that the figures miss."""
    if objectives.offer_us is not None and figures["offer_us"] > objectives.offer_us:
        yield f"offering an event costs {figures['offer_us']:g} us, more than {objectives.offer_us:g}"
    total_us = figures["total_us"][JUDGED_RATE]
    if objectives.total_us is not None and total_us > objectives.total_us:
        yield f"an event costs {total_us:g} us in all at {JUDGED_RATE}/s, more than {objectives.total_us:g}"
    if objectives.archived_per_s is not None and figures["archived_per_s"] < objectives.archived_per_s:
        yield f"a core archives {figures['archived_per_s']} events/s, less than {objectives.archived_per_s:g}"


def rows(figures: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield the rows of a table: name, value, ratio to redis-py."""
    pipeline_us = figures["pipeline_us"]

    def cost(name: str, value_us: float) -> tuple[str, str, str]:
        return name, f"{value_us:.1f} us", f"{value_us / pipeline_us:.2f}"

    yield cost("redis-py: an XADD for each event, 500 in a pipeline", pipeline_us)
    yield cost("redis-py: an XADD for 100 events", figures["batches_us"])
    yield cost("encoding the line, part of all of these", figures["encode_us"])
    yield cost("offer alone", figures["offer_us"])
    for rate, value_us in figures["total_us"].items():
        yield cost(f"offer to the reply of Redis, {int(rate):,}/s", value_us)
    yield cost(f"offer to the reply of Redis, unpaced ({figures['peak_per_s']:,}/s)", figures["peak_us"])
    for rate, p50_ms in figures["accept_p50_ms"].items():
        times = f"p50 {p50_ms:.1f} ms, p99 {figures['accept_p99_ms'][rate]:.1f} ms"
        yield f"feedback until it is on the disk, {int(rate):,}/s", times, ""
    yield "redis-py: XREADGROUP and XACK, counting only", f"{figures['counted_per_s']:,}/s", "1.00"
    yield "consumer, into the archive", f"{figures['archived_per_s']:,}/s", f"{figures['ratio_to_counting']:.2f}"


def _median(rounds: list[Any], name: str) -> float:
    return float(statistics.median(getattr(one, name) for one in rounds))


def _medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
