"""The owner of a namespace in Redis: the archive that marked it.

Invariants:

- A consumer reads, acknowledges and trims only where the mark names its archive.
- A producer ships only where the mark names the archive of its slot, or one that replaced it. Until then its events
  stay in its write-ahead log.
- Only a process that holds the archive writes a mark (its consumer, or the check before the start): where there is
  none, or, on request, over another one. The new mark names the archives that it replaces, so that their producers
  ship to its archive.
"""

from enum import Enum
from typing import NamedTuple

from telemetry.errors import ForeignRedisError

# Replacements are rare; the oldest are dropped first.
_MOST_REPLACED = 16


class OwnerMark(NamedTuple):
    """The mark of a namespace."""

    archive: str  # The identity of the archive that owns it.
    replaced: tuple[str, ...] = ()  # Archives that owned it before, the last one first.

    def __str__(self) -> str:
        return " ".join((self.archive, *self.replaced))

    @classmethod
    def parse(cls, text: str) -> "OwnerMark | None":
        """Read a mark from Redis or the catalogue; None if it is blank."""
        words = text.split()
        return cls(words[0], tuple(words[1:])) if words else None

    def in_place_of(self, other: "OwnerMark") -> "OwnerMark":
        """Return this mark for a namespace that has another one."""
        others = (other.archive, *other.replaced, *self.replaced)
        replaced = dict.fromkeys(name for name in others if name != self.archive)
        return OwnerMark(self.archive, tuple(replaced)[:_MOST_REPLACED])


class ShipDecision(Enum):
    """Whether a producer may ship: WAIT until the mark is written; REFUSE where another archive is the owner."""

    SHIP = "ship"
    WAIT = "wait"
    REFUSE = "refuse"


def decide_shipping(archive: str | None, mark: OwnerMark | None) -> ShipDecision:
    """Decide whether a producer may ship to a namespace with this mark; there is none after Redis lost everything.

    `archive` is that of the producer's slot; None if it is not known yet.
    """
    if mark is None:
        return ShipDecision.SHIP if archive is None else ShipDecision.WAIT
    known = archive is None or archive == mark.archive or archive in mark.replaced
    return ShipDecision.SHIP if known else ShipDecision.REFUSE


def foreign_redis_error(where: str, mark: OwnerMark, archive: str) -> ForeignRedisError:
    """Return the error of an installation with one archive that meets a namespace with the mark of another."""
    return ForeignRedisError(
        f"The archive {mark.archive} owns {where}, not this installation's archive, {archive}. Give each "
        "installation its own RECOLLECT_REDIS_NAMESPACE, or take the namespace over with --claim."
    )
