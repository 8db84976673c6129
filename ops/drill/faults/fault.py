"""A fault: its injection, its needs, and the promise that holds during it.

Invariant: entering the context of an injection injects the fault, and leaving it undoes the fault, also if the drill is
interrupted.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import Enum

from ops.drill.faults.promise import Promise
from ops.drill.system.drilled_system import DrilledSystem
from ops.drill.system.needs import Need, RunningParts


class SystemKind(Enum):
    """The system that a fault needs.

    DEFAULT: any installation. INSTRUMENTED: one that the drill started with a proxy, small disks and clocks of its own.
    """

    DEFAULT = "default settings"
    INSTRUMENTED = "instrumented"


@dataclass(frozen=True)
class Injection:
    """One injection of a fault, as scheduled.

    Attributes:
        at_s: Seconds since the round began.
        targets: Names of parts; `NAME/worker` is one process of a part.
        hold_s: How long it lasts; 0 for an instant one.
        draw: A random number from 0 to 1, for a choice that is made at injection.
    """

    at_s: float
    targets: tuple[str, ...]
    hold_s: float
    draw: float


Inject = Callable[[DrilledSystem, Injection], AbstractAsyncContextManager[None]]


@dataclass(frozen=True)
class Fault:
    """One line of the catalogue.

    Attributes:
        name: Its name in `--faults`.
        row: The row of docs/promises.md.
        title: The fault in words.
        promise: The promise that holds during the fault.
        targets: The sets of targets among some parts; each injection takes one of them.
        inject: Injects and undoes it.
        every_s: From one injection to the next.
        hold_s: How long an injection lasts; 0 for an instant one.
        kind: The system that it needs.
        needs: Its further needs.
    """

    name: str
    row: str
    title: str
    promise: Promise
    targets: Callable[[RunningParts], list[tuple[str, ...]]]
    inject: Inject
    every_s: float
    hold_s: float = 0.0
    kind: SystemKind = SystemKind.DEFAULT
    needs: tuple[Need, ...] = ()
