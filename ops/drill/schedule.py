"""The schedule of a fault: times and targets of its injections; pure.

Invariant: the schedule depends on the seed, the parts' names, the fault and the times alone. The same seed gives the
same schedule, whichever other faults are chosen.
"""

import random

from ops.drill.faults.fault import Fault, Injection
from ops.drill.system.needs import RunningParts

# A lasting fault leaves at least half of its round for the recovery.
_MAX_HOLD_SHARE = 0.5
# Instant injections fall into this part of their interval, so that they do not synchronise with the system's timers.
_JITTER = (0.1, 0.7)


def schedule_injections(
    fault: Fault, parts: RunningParts, duration_s: float, every_s: float | None, seed: int
) -> list[Injection]:
    """Return the injections of a round of `duration_s`, in order of time, without overlap; none without targets.

    `every_s` replaces the interval between instant injections; a lasting fault keeps its own.
    """
    choices = fault.targets(parts)
    if not choices:
        return []
    rng = random.Random(f"{seed}/{fault.name}")  # noqa: S311  # repeatable, not secret
    hold_s = min(fault.hold_s, _MAX_HOLD_SHARE * duration_s)
    interval_s = fault.every_s if hold_s or every_s is None else every_s
    found: list[Injection] = []
    count = 0
    while True:
        at_s = count * interval_s if hold_s else (count + rng.uniform(*_JITTER)) * interval_s
        if not found:
            # The first injection always happens, or the round would not test the fault.
            at_s = min(at_s, duration_s / 2)
        elif at_s + hold_s >= duration_s:
            return found
        found.append(Injection(round(at_s, 3), rng.choice(choices), hold_s, round(rng.random(), 6)))
        count += 1
