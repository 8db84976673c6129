"""One half of a pair: an open loop at one rate against an installation, through its balancer."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from loadbalancer import roster
from ops.load.attack import Attack, ClientRules
from ops.load.http_connection import HttpClient
from ops.load.pacing import schedule
from ops.load.summary import Summary
from ops.load.traffic import Traffic
from service.errors import RunError

_WARMUP_S: Final = 2.0
_MS_PER_S: Final = 1e3


@dataclass(frozen=True, kw_only=True)
class PairPlan:
    """The options of a run in pairs of halves; 15 of 100 requests report events."""

    pairs: int
    seconds: float
    rate: float
    connections: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Half:
    """The latencies of good lists, the replicas' processor time per request, and the failures after one retry."""

    p50_ms: float
    p99_ms: float
    replica_ms: float
    requests: int
    failures: dict[str, int]


async def measure(plan: PairPlan, home: Path, client: HttpClient, traffic: Traffic) -> Half:
    """Drive one half, after a warm-up.

    Raises:
        RunError: No list had a good answer.
    """
    await _drive(plan, client, traffic, _WARMUP_S)
    before_s = _replicas_s(home)
    summary = await _drive(plan, client, traffic, plan.seconds)
    return _half(summary, _replicas_s(home) - before_s)


def rng(plan: PairPlan, use: str) -> random.Random:
    """Return a generator for one use, the same in every run of a plan."""
    return random.Random(f"{plan.seed}/{use}")  # noqa: S311  # chance that can be repeated, not secrets


async def _drive(plan: PairPlan, client: HttpClient, traffic: Traffic, duration_s: float) -> Summary:
    summary = Summary()
    attack = Attack(client, traffic, ClientRules(), rng(plan, "jitter"), summary.add)
    await attack.run(schedule("poisson", plan.rate, duration_s, rng(plan, "pacing")))
    return summary


def _half(summary: Summary, replicas_s: float) -> Half:
    lists = summary.kinds["recommend"].latency
    p50_s, p99_s = lists.percentile_s(0.5), lists.percentile_s(0.99)
    if p50_s is None or p99_s is None:
        raise RunError("No list had a good answer.")
    total = summary.total()
    return Half(
        p50_ms=p50_s * _MS_PER_S,
        p99_ms=p99_s * _MS_PER_S,
        replica_ms=replicas_s / total.requests * _MS_PER_S,
        requests=total.requests,
        failures=dict(total.failures),
    )


def _replicas_s(home: Path) -> float:
    """Return the processor time of the replicas since their start, in seconds."""
    pids = (row.pid for row in roster.read(home) if roster.is_replica(row) and row.pid is not None)
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)
