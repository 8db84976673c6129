"""A fault: what is done to the system, what that needs, and what is promised meanwhile.

Invariant: entering a context injects a fault and leaving it undoes the fault, so however a drill ends, it is undone.
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
class Strike:
    """One time that a fault is injected.

    Attributes:
        at_s: Seconds since the round began.
        targets: Names of parts; `NAME/worker` is one process of a part.
        hold_s: How long it lasts; 0 for an instant one.
        draw: From 0 to 1, for a choice that depends on the moment.
    """

    at_s: float
    targets: tuple[str, ...]
    hold_s: float
    draw: float


Inject = Callable[[DrilledSystem, Strike], AbstractAsyncContextManager[None]]


@dataclass(frozen=True)
class Fault:
    """One line of the catalogue.

    Attributes:
        name: Its name in `--faults`.
        row: Of docs/promises.md.
        title: What is done, in words.
        promise: What is promised meanwhile.
        targets: The sets of targets among some parts; a strike takes one of them.
        inject: Injects and undoes it.
        every_s: From one strike to the next.
        hold_s: How long a strike lasts; 0 for an instant one.
        kind: The system that it needs.
        needs: What else it needs.
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
