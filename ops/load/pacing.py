"""Intended send times; pure.

Invariant: the schedule depends on the rate, the duration and the seed only, never on the service. So the load is an
open loop, and latencies counted from these times are free of coordinated omission (G. Tene, "How NOT to Measure
Latency", 2013).
"""

import random
from collections.abc import Callable, Iterator
from typing import Literal

Arrivals = Literal["constant", "poisson"]


def constant(rate_rps: float, duration_s: float) -> Iterator[float]:
    """Yield evenly spaced seconds from 0 to below `duration_s`, at `rate_rps`, above 0, per second."""
    for index in range(_first_index_at(rate_rps, duration_s)):
        yield index / rate_rps


def poisson(rate_rps: float, duration_s: float, rng: random.Random) -> Iterator[float]:
    """Yield the ascending seconds of a Poisson process, below `duration_s`: the load of many independent users."""
    send_s = rng.expovariate(rate_rps)
    while send_s < duration_s:
        yield send_s
        send_s += rng.expovariate(rate_rps)


def schedule(arrivals: Arrivals, rate_rps: float, duration_s: float, rng: random.Random) -> Iterator[float]:
    """Return the send times of one attack, in seconds since its start."""
    return _SCHEDULES[arrivals](rate_rps, duration_s, rng)


def _first_index_at(rate_rps: float, duration_s: float) -> int:
    """Return the number of gaps that begin below `duration_s`, without a request more by rounding."""
    count = round(rate_rps * duration_s)
    return count + 1 if count / rate_rps < duration_s else count


_SCHEDULES: dict[Arrivals, Callable[[float, float, random.Random], Iterator[float]]] = {
    "constant": lambda rate_rps, duration_s, _: constant(rate_rps, duration_s),
    "poisson": poisson,
}
