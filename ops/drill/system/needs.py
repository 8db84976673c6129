"""The needs of faults, and the parts of an installation that may meet them."""

from dataclasses import dataclass
from enum import Enum


class Need(Enum):
    """A need of a fault beside a running installation; the value completes "it needs ..."."""

    REDIS = "a Redis that belongs to the installation"
    REDIS_FILES = "a Redis whose files are in the home directory"
    THREE_REPLICAS = "three replicas"
    STRACE = "strace, and permission to use it"
    LINK = "the drill's own proxy in front of Redis"
    OWN_REDIS = "a Redis that the drill started"
    SPOOL_DISK = "permission to mount a small disk under the spool"
    LOG_DISK = "permission to mount a small disk under the logs"
    OUTPUT = "the pipe that the installation prints to"
    CLOCKS = "a C compiler"


@dataclass(frozen=True)
class RunningParts:
    """The names of the parts that run."""

    replicas: tuple[str, ...]
    balancers: tuple[str, ...]
    redis: bool
    consumer: bool
