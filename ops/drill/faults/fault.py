"""A fault: what is done to the system, what that needs, and what is promised meanwhile.

The invariant: a fault is done by entering a context and undone by leaving it, so whatever ends the drill undoes it.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import Enum

from ops.drill.faults.promise import Promise
from ops.drill.needs import Need, RunningParts
from ops.drill.system import System


class Setting(Enum):
    """Where a fault can be done.

    ANY: any installation, as it is. PREPARED: only one that the drill started between parts of its own: a proxy, small
    disks, clocks that can be set.
    """

    ANY = "as shipped"
    PREPARED = "prepared"


@dataclass(frozen=True)
class Strike:
    """One time that a fault is done.

    Attributes:
        at_s: Seconds since its round began.
        targets: Parts' names; `NAME/worker` is one process of a part.
        hold_s: How long it stays; 0 for a blow.
        draw: From 0 to 1, for a choice that only the moment offers.
    """

    at_s: float
    targets: tuple[str, ...]
    hold_s: float
    draw: float


Do = Callable[[System, Strike], AbstractAsyncContextManager[None]]


@dataclass(frozen=True)
class Fault:
    """One line of the catalogue.

    Attributes:
        name: What `--faults` calls it.
        row: Row of docs/promises.md, such as "R7".
        title: What is done, in words.
        promise: What is promised meanwhile.
        choices: The sets of targets that there are among some parts; a strike takes one of them.
        do: Does it and undoes it.
        every_s: From one strike to the next.
        hold_s: How long one stays; 0 for a blow.
        setting: Where it can be done.
        needs: What it cannot be done without.
    """

    name: str
    row: str
    title: str
    promise: Promise
    choices: Callable[[RunningParts], list[tuple[str, ...]]]
    do: Do
    every_s: float
    hold_s: float = 0.0
    setting: Setting = Setting.ANY
    needs: tuple[Need, ...] = ()
