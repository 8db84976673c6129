"""Admission control: a replica refuses requests at once that it would answer late.

Invariants:

- Lists are refused before feedback, and health checks never. Lists, feedback, requests for several lists and searches
  have separate limits.
- A refusal costs little, precedes the reading of the body and carries Retry-After; an accepted request is answered in
  about the target time of its kind.

A limit follows from response times as in TCP's congestion control: it falls by the average excess when more than one
request in twenty is late, and rises by a constant when none is and the limit was reached (additive increase,
multiplicative decrease; Chiu and Jain, "Analysis of the increase and decrease algorithms for congestion avoidance in
computer networks", 1989; the gradient is that of Netflix's concurrency-limits). Pure: the caller passes the time.
"""

from dataclasses import dataclass, field
from typing import Final

_WINDOW_S: Final = 0.1
_MIN_WINDOW_SAMPLES: Final = 20
_LATE_SHARE: Final = 0.05
# The factor of a decrease lies between these.
_SMALLEST_FACTOR: Final = 0.5
_LARGEST_FACTOR: Final = 0.9
_INCREASE: Final = 4
_MANY_LISTS_TARGET_S: Final = 1.0
_SEARCH_TARGET_S: Final = 0.25


@dataclass
class Limit:
    """The limit of requests of one kind that are open at once.

    Attributes:
        target_s: Target time from a request's arrival to its answer.
        least: Lower bound of the limit.
        most: Upper bound of the limit.
        limit: The limit now.
        open: Requests open now.
        refused: Requests refused so far.
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
    _total_s: float = field(default=0.0, repr=False)
    _reached: bool = field(default=False, repr=False)

    @property
    def full(self) -> bool:
        """Whether the next request is to be refused."""
        return self.open >= self.limit

    def enter(self) -> bool:
        """Accept a request, or count it as refused; return whether it is accepted."""
        if self.full:
            self.count_refusal()
            return False
        self.open += 1
        return True

    def count_refusal(self) -> None:
        """Count a request refused at the limit."""
        self._reached = True
        self.refused += 1

    def leave(self, arrived_s: float, now_s: float) -> None:
        """End an accepted request; both times are seconds of one clock."""
        self.open -= 1
        self._answered += 1
        took_s = now_s - arrived_s
        self._total_s += took_s
        if took_s > self.target_s:
            self._late += 1
        if now_s >= self._window_ends_s and self._answered >= _MIN_WINDOW_SAMPLES:
            self._adapt()
            self._window_ends_s = now_s + _WINDOW_S

    def drop(self) -> None:
        """End an accepted request whose client left before it began; its time is no sample."""
        self.open -= 1

    def _adapt(self) -> None:
        if self._late > _LATE_SHARE * self._answered:
            gradient = self.target_s * self._answered / self._total_s
            factor = min(_LARGEST_FACTOR, max(_SMALLEST_FACTOR, gradient))
            self.limit = max(self.least, int(self.limit * factor))
        elif self._reached:
            self.limit = min(self.most, self.limit + _INCREASE)
        self._answered = self._late = 0
        self._total_s = 0.0
        self._reached = False


class Admission:
    """The limits of one replica; the target of feedback includes the disk and is above that of lists."""

    def __init__(self, list_target_s: float, feedback_target_s: float) -> None:
        self.lists = Limit(list_target_s, least=16, most=1024, limit=256)
        self.feedback = Limit(feedback_target_s, least=64, most=1024, limit=512)
        # Their time is that of many lists, and says nothing about the time of one.
        self.many = Limit(_MANY_LISTS_TARGET_S, least=1, most=64, limit=8)
        # One at a time, in a thread.
        self.searches = Limit(_SEARCH_TARGET_S, least=4, most=256, limit=32)

    def __repr__(self) -> str:
        return f"<Admission {self.lists.limit} lists, {self.feedback.limit} feedback>"

    def limit_of(self, target: str) -> Limit | None:
        """Return the limit of a request by its target as sent; None for health checks."""
        if target.startswith(("/v1/events", "/v1/users")):
            return self.feedback
        if target.startswith("/v1/recommendations/batch"):
            return self.many
        if target.startswith("/v1/items?"):
            return self.searches
        return None if target.startswith(("/healthz", "/readyz")) else self.lists
