"""A fault: what is done to the system, what that needs, and what is promised meanwhile.

The invariant: a fault is done by entering a context and undone by leaving it, so whatever ends the drill undoes it.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from ops.drill.faults.promise import Promise

if TYPE_CHECKING:
    from ops.drill.system import System


class Need(Enum):
    """What a fault cannot be done without, beside a running system."""

    REDIS = "a Redis that belongs to the installation"
    REDIS_FILES = "a Redis whose files are in the home directory"
    THREE_REPLICAS = "three replicas"
    STRACE = "strace, and leave to use it"
    LINK = "the drill's own proxy in front of Redis"
    OWN_REDIS = "a Redis that the drill started"
    SPOOL_DISK = "leave to mount a small disk under the spool"
    LOG_DISK = "leave to mount a small disk under the logs"
    OUTPUT = "the pipe that the system prints to"
    CLOCKS = "a C compiler"


class Setting(Enum):
    """Where a fault can be done.

    ANY: any installation, as it is. PREPARED: only one that the drill started between parts of its own: a proxy, small
    disks, clocks that can be set.
    """

    ANY = "as shipped"
    PREPARED = "prepared"


@dataclass(frozen=True)
class Parts:
    """The names of what runs."""

    replicas: tuple[str, ...]
    balancers: tuple[str, ...]
    redis: bool
    consumer: bool


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


Do = Callable[["System", Strike], AbstractAsyncContextManager[None]]


@dataclass(frozen=True)
class Fault:
    """One line of the catalogue.

    Attributes:
        name: What `--faults` calls it.
        row: Of RELIABILITY.md 2.1.
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
    choices: Callable[[Parts], list[tuple[str, ...]]]
    do: Do
    every_s: float
    hold_s: float = 0.0
    setting: Setting = Setting.ANY
    needs: tuple[Need, ...] = ()
