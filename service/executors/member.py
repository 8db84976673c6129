"""A member of a group of processes that run one function together and exchange values with each other."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Kept:
    """What the first member gives the command to keep: a group that is started again goes on from it."""

    content: bytes


@dataclass(frozen=True)
class Progressed:
    """How far the first member has come, as `Progress`."""

    stage: str
    done: int
    total: int


def _sent_nowhere(message: Any) -> None:
    del message


@dataclass(frozen=True)
class Member:
    """The place of a process within a group.

    Attributes:
        rank: From 0, which is the first member.
        size: The number of members.
        host: An address of the first member that all of them reach.
        port: Where the first member listens.
        attempt: How often the group was started before.
        listener: The descriptor of the socket that listens there; None for the other members.
        kept: What the first member of an earlier start has kept last; None for the other members.
        keep_interval_s: How often to keep something; 0 for at any time, None for never.
        send: Takes `Kept` and `Progressed` to the command.
    """

    rank: int
    size: int
    host: str
    port: int
    attempt: int = 0
    listener: int | None = None
    kept: bytes | None = None
    keep_interval_s: float | None = None
    send: Callable[[Kept | Progressed], None] = _sent_nowhere

    def keep(self, content: bytes) -> None:
        """Let the command keep some bytes in place of those before; of the first member."""
        self.send(Kept(content))

    def progress(self, stage: str, done: int, total: int) -> None:
        """Tell the command how far the group has come; only the first member does."""
        if not self.rank:
            self.send(Progressed(stage, done, total))
