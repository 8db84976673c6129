"""Which requests a replica takes on, and which it refuses at once because it could not answer them in time.

Invariants:

- Lists are refused before feedback, and health never: lists may take less time than feedback before fewer are taken on,
  and neither counts against the other's limit.
- A refusal costs next to nothing, comes before the body is read, and says when to come back; what is taken on is
  answered in about the time that its class may take.

How many are open at once follows from how long they take, as in TCP's congestion control: fewer when more than one in
twenty was late, by as much as they were late on average, and a few more when none was and the limit was reached
(additive increase, multiplicative decrease; Chiu and Jain, "Analysis of the increase and decrease algorithms for
congestion avoidance in computer networks", 1989; the gradient is that of Netflix's concurrency-limits).
`Limit` is pure: the clock is the caller's.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

_WINDOW_S: Final = 0.1
_LEAST_SAMPLES: Final = 20
_LATE_SHARE: Final = 0.05
# A window's decrease, by how late it was.
_LEAST_DECREASE: Final = 0.9
_MOST_DECREASE: Final = 0.5
_INCREASE: Final = 4


class Kind(Enum):
    """What a request is about, by the way in which it is refused."""

    LIST = "list"
    FEEDBACK = "feedback"
    HEALTH = "health"


def kind_of(target: str) -> Kind:
    """Return the kind of a request, by its target as it was sent."""
    if target.startswith(("/v1/events", "/v1/users")):
        return Kind.FEEDBACK
    if target.startswith(("/healthz", "/readyz")):
        return Kind.HEALTH
    return Kind.LIST


@dataclass
class Limit:
    """How many requests of one kind may be open at once.

    Attributes:
        target_s: How long one may take, from its arrival to its answer.
        least: The limit is never below this.
        most: Nor above this.
        limit: The limit now.
        open: How many are open now.
        refused: How many were refused.
    """

    target_s: float
    least: int
    most: int
    limit: int
    open: int = 0
    refused: int = 0
    _window_ends_s: float = field(default=0.0, repr=False)
    _answered: int = field(default=0, repr=False)
    _late: int = field(default=0, repr=False)
    _taken_s: float = field(default=0.0, repr=False)
    _reached: bool = field(default=False, repr=False)

    @property
    def full(self) -> bool:
        """Whether one more is to be refused."""
        return self.open >= self.limit

    def enter(self) -> bool:
        """Take a request on, or refuse it; returns whether it was taken on."""
        if self.full:
            self.refuse()
            return False
        self.open += 1
        return True

    def refuse(self) -> None:
        """Count a request that was refused for being beyond the limit."""
        self._reached = True
        self.refused += 1

    def leave(self, arrived_s: float, now_s: float) -> None:
        """Let go of a request that was taken on.

        Args:
            arrived_s: When it arrived, in seconds on any clock.
            now_s: The time on the same clock.
        """
        self.open -= 1
        self._answered += 1
        took_s = now_s - arrived_s
        self._taken_s += took_s
        if took_s > self.target_s:
            self._late += 1
        if now_s >= self._window_ends_s and self._answered >= _LEAST_SAMPLES:
            self._adapt()
            self._window_ends_s = now_s + _WINDOW_S

    def drop(self) -> None:
        """Let go of a request whose client left before it was begun: its time says nothing."""
        self.open -= 1

    def _adapt(self) -> None:
        if self._late > _LATE_SHARE * self._answered:
            gradient = self.target_s * self._answered / self._taken_s
            self.limit = max(self.least, int(self.limit * min(_LEAST_DECREASE, max(_MOST_DECREASE, gradient))))
        elif self._reached:
            self.limit = min(self.most, self.limit + _INCREASE)
        self._answered = self._late = 0
        self._taken_s = 0.0
        self._reached = False


class Admission:
    """The limits of one replica.

    Args:
        list_target_s: How long a list may take.
        feedback_target_s: How long feedback may take, the disk included; longer than lists, so that lists go first.
    """

    def __init__(self, list_target_s: float, feedback_target_s: float) -> None:
        self.lists = Limit(list_target_s, least=16, most=1024, limit=256)
        self.feedback = Limit(feedback_target_s, least=64, most=1024, limit=512)
        self._of = {Kind.LIST: self.lists, Kind.FEEDBACK: self.feedback}

    def __repr__(self) -> str:
        return f"<Admission {self.lists.limit} lists, {self.feedback.limit} of feedback>"

    def of(self, kind: Kind) -> Limit | None:
        """Return the limit of a kind; None for what is never refused."""
        return self._of.get(kind)
