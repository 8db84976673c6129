"""When what is struck; pure.

The invariant: the schedule depends on the seed, the parts' names, the fault and the times asked for alone, and that of
one fault does not depend on which others are chosen. The same seed gives the same schedule.
"""

import random

from ops.drill.faults.fault import Fault, Strike
from ops.drill.needs import RunningParts

# A fault that stays leaves at least half of its round to see how the system recovers.
_LONGEST_HOLD = 0.5
# Blows fall somewhere in this part of their interval, so that they do not keep step with anything in the system.
_WITHIN = (0.1, 0.7)


def strikes(fault: Fault, parts: RunningParts, duration_s: float, every_s: float | None, seed: int) -> list[Strike]:
    """Return the strikes of one round.

    Args:
        fault: What is done.
        parts: What there is to do it to.
        duration_s: How long the round lasts.
        every_s: From one blow to the next; None for the fault's own pace. A fault that stays keeps its own.
        seed: Of the whole drill.

    Returns:
        In order of time; none if there is nothing to strike. No two overlap.
    """
    choices = fault.choices(parts)
    if not choices:
        return []
    rng = random.Random(f"{seed}/{fault.name}")  # noqa: S311  # chance that can be repeated, not secrets
    hold_s = min(fault.hold_s, _LONGEST_HOLD * duration_s)
    pace_s = fault.every_s if hold_s or every_s is None else every_s
    found: list[Strike] = []
    turn = 0
    while True:
        at_s = turn * pace_s if hold_s else (turn + rng.uniform(*_WITHIN)) * pace_s
        if not found:
            # The first one is always done: a round without its fault would prove nothing.
            at_s = min(at_s, duration_s / 2)
        elif at_s + hold_s >= duration_s:
            return found
        found.append(Strike(round(at_s, 3), rng.choice(choices), hold_s, round(rng.random(), 6)))
        turn += 1
