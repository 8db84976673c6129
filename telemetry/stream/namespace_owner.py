"""Whose a namespace in Redis is: the archive's that marked it.

Invariants:

- A consumer reads, acknowledges and trims only where the mark names its archive.
- A producer ships only where the mark names the archive that its slot belongs to, or one that replaced that one. Until
  then its events stay in its log.
- A mark is written by the side of the archive alone: where there is none, or in the place of another on purpose. Then
  it names those that it replaces, so that their producers follow.
"""

from enum import Enum
from typing import NamedTuple

from telemetry.errors import ForeignRedisError

# Moves on purpose are few; the oldest go first.
_MOST_REPLACED = 16


class OwnerMark(NamedTuple):
    """The mark of an archive.

    Attributes:
        archive: The archive's identity.
        replaced: Archives in whose place it has come, the last one first.
    """

    archive: str
    replaced: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join((self.archive, *self.replaced))

    @classmethod
    def parse(cls, text: str) -> "OwnerMark | None":
        """Read a mark as Redis or the catalogue has it; None if there is nothing in it."""
        words = text.split()
        return cls(words[0], tuple(words[1:])) if words else None

    def in_place_of(self, other: "OwnerMark") -> "OwnerMark":
        """Return our mark for a place where another one is."""
        others = (other.archive, *other.replaced, *self.replaced)
        replaced = dict.fromkeys(name for name in others if name != self.archive)
        return OwnerMark(self.archive, tuple(replaced)[:_MOST_REPLACED])


class ShipDecision(Enum):
    """Whether a producer may ship."""

    SHIP = "ship"
    WAIT = "wait"
    REFUSE = "refuse"


def decide_shipping(belongs_to: str | None, mark: OwnerMark | None) -> ShipDecision:
    """Decide whether a producer may ship to a place.

    Args:
        belongs_to: The archive that its slot belongs to; None if that is not known yet.
        mark: The mark there, None if there is none.

    Returns:
        WAIT where the mark is still to be written, as after Redis lost everything; REFUSE where another archive rules.
    """
    if mark is None:
        return ShipDecision.SHIP if belongs_to is None else ShipDecision.WAIT
    known = belongs_to is None or belongs_to == mark.archive or belongs_to in mark.replaced
    return ShipDecision.SHIP if known else ShipDecision.REFUSE


def foreign_redis_error(where: str, mark: OwnerMark, archive: str) -> ForeignRedisError:
    """Say that a place belongs to another archive than ours.

    Args:
        where: The place, in words.
        mark: Whose it is.
        archive: Ours.
    """
    return ForeignRedisError(
        f"{where} belongs to the archive {mark.archive} and not to this installation's, {archive}: give each "
        "installation its own RECOLLECT_REDIS_NAMESPACE, or take the place over on purpose with --claim"
    )
