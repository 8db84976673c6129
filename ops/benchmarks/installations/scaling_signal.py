"""Which figure says that another replica is due: processor time and open requests of one replica at growing rates.

Invariant: rates are shares of the peak of the same replica in the same run, and every round has the same requests, so
that the shares are the results and not the rates.
"""

import asyncio
import re
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ops.benchmarks.installations.open_loop import LoadRound, RawRequest, run_closed_loop, run_open_loop
from ops.benchmarks.workbench import HOST

SHARES: Final = (0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.3)
HEADINGS: Final = ("share of peak", "rps", "cores", "open", "p50 ms", "p99 ms", "refused")
_PEAK_CONNECTIONS: Final = 32
_CONNECTIONS: Final = 256
_WARM_UP_S: Final = 2.0
_CPU: Final = re.compile(r"^process_cpu_seconds_total (\S+)$", re.MULTILINE)
_REQUEST_S: Final = re.compile(r"^recollect_request_seconds_sum\{.*\} (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class ScalingRound:
    """One rate.

    Attributes:
        share: The rate as a share of the peak.
        rate_rps: The rate.
        cores: Processor time of the replica per second.
        open_requests: Requests in its handlers at a time, on average: handler seconds per second (Little's law).
        p50_ms: The median latency of lists and events.
        p99_ms: Their 99th percentile.
        refused: The share of requests that were refused, or had no connection.
    """

    share: float
    rate_rps: float
    cores: float
    open_requests: float
    p50_ms: float
    p99_ms: float
    refused: float


async def measure(
    port: int, admin_port: int, requests: Sequence[RawRequest], seconds: float, on_progress: Callable[[str], None]
) -> list[ScalingRound]:
    """Find the peak of a replica, then send it shares of that rate, the small ones first."""
    await run_closed_loop(HOST, port, requests, connections=_PEAK_CONNECTIONS, duration_s=_WARM_UP_S)
    peak = await run_closed_loop(HOST, port, requests, connections=_PEAK_CONNECTIONS, duration_s=seconds)
    on_progress(f"peak {peak.goodput_rps():,.0f}/s")
    rounds = []
    for share in SHARES:
        before = await asyncio.to_thread(_counters, admin_port)
        rate_rps = share * peak.goodput_rps()
        load = await run_open_loop(
            HOST, port, requests, rate_rps=rate_rps, connections=_CONNECTIONS, duration_s=seconds
        )
        after = await asyncio.to_thread(_counters, admin_port)
        rounds.append(_round(share, rate_rps, load, before, after))
        on_progress(f"{share:.0%} of it: {rounds[-1].cores:.2f} cores, p99 {rounds[-1].p99_ms:.1f} ms")
    return rounds


def rows(rounds: Sequence[ScalingRound]) -> list[tuple[str, ...]]:
    """Return the rounds as cells."""
    return [
        (
            f"{one.share:.0%}",
            f"{one.rate_rps:,.0f}",
            f"{one.cores:.2f}",
            f"{one.open_requests:.2f}",
            f"{one.p50_ms:.1f}",
            f"{one.p99_ms:.1f}",
            f"{one.refused:.1%}",
        )
        for one in rounds
    ]


def figures(rounds: Sequence[ScalingRound]) -> dict[str, Any]:
    """Return the rounds as plain values."""
    names = ("share", "rate_rps", "cores", "open_requests", "p50_ms", "p99_ms", "refused")
    return {name: [round(getattr(one, name), 4) for one in rounds] for name in names}


def _round(
    share: float, rate_rps: float, load: LoadRound, before: tuple[float, float], after: tuple[float, float]
) -> ScalingRound:
    tallies = [load.tallies["list"], load.tallies["event"]]
    served = sorted(took_s for tally in tallies for took_s in tally.served_s) or [0.0]
    due = sum(tally.due for tally in tallies) or 1
    return ScalingRound(
        share=share,
        rate_rps=rate_rps,
        cores=(after[0] - before[0]) / load.took_s,
        open_requests=(after[1] - before[1]) / load.took_s,
        p50_ms=1e3 * served[len(served) // 2],
        p99_ms=1e3 * served[min(len(served) - 1, int(0.99 * len(served)))],
        refused=sum(tally.refused + tally.unsent + tally.late for tally in tallies) / due,
    )


def _counters(admin_port: int) -> tuple[float, float]:
    """Return the processor seconds of a replica and the seconds that its handlers took."""
    with urllib.request.urlopen(f"http://{HOST}:{admin_port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    cpu = _CPU.search(text)
    return 0.0 if cpu is None else float(cpu[1]), sum(float(found) for found in _REQUEST_S.findall(text))
