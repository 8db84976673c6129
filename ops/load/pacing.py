"""When each request is meant to be sent; pure.

The invariant: the schedule depends on the rate, the duration and the seed alone, never on how fast the service answers.
That is what makes the load open-loop, and latencies counted from these times free of coordinated omission
(G. Tene, "How NOT to Measure Latency", 2013).
"""

import random
from collections.abc import Callable, Iterator
from typing import Literal

Arrivals = Literal["constant", "poisson"]


def constant(rate_rps: float, duration_s: float) -> Iterator[float]:
    """Yield send times at even distances.

    Args:
        rate_rps: Requests per second, above 0.
        duration_s: The last send time lies below this.

    Yields:
        Seconds since the start, the first one 0.
    """
    for index in range(_first_index_at(rate_rps, duration_s)):
        yield index / rate_rps


def poisson(rate_rps: float, duration_s: float, rng: random.Random) -> Iterator[float]:
    """Yield the send times of a Poisson process: many independent users, so bunches and gaps.

    Args:
        rate_rps: Mean requests per second, above 0.
        duration_s: The last send time lies below this.
        rng: The source of the gaps, which are exponentially distributed.

    Yields:
        Seconds since the start, ascending.
    """
    send_s = rng.expovariate(rate_rps)
    while send_s < duration_s:
        yield send_s
        send_s += rng.expovariate(rate_rps)


def schedule(arrivals: Arrivals, rate_rps: float, duration_s: float, rng: random.Random) -> Iterator[float]:
    """Return the send times of one attack, in seconds since its start."""
    return _SCHEDULES[arrivals](rate_rps, duration_s, rng)


def _first_index_at(rate_rps: float, duration_s: float) -> int:
    """Return how many whole gaps begin below duration_s; rounding errors of rate x duration must not add a request."""
    count = round(rate_rps * duration_s)
    return count + 1 if count / rate_rps < duration_s else count


_SCHEDULES: dict[Arrivals, Callable[[float, float, random.Random], Iterator[float]]] = {
    "constant": lambda rate_rps, duration_s, _: constant(rate_rps, duration_s),
    "poisson": poisson,
}
