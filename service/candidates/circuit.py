"""A circuit breaker: an address that keeps failing is not asked for a while, so that no request waits for it.

Closed, it lets every request pass. After some failures in a row it opens for a pause; then one request at a time tries
the address, and its success closes the circuit. The pause doubles while the tries fail (Nygard, "Release It!", 2007,
section 5.2). Pure: the caller passes the time.
"""

from dataclasses import dataclass
from typing import Final

# One failure may be a connection that the other side closed, and two a hiccup.
_MOST_FAILURES: Final = 3
_FIRST_PAUSE_S: Final = 0.25
_MOST_PAUSE_S: Final = 2.0


@dataclass
class Circuit:
    """The circuit of one address.

    Attributes:
        failures: Failures in a row.
        opens_at_s: When the next try may begin; counts only while the circuit is open.
        is_tried: Whether a request is trying the address.
    """

    failures: int = 0
    opens_at_s: float = 0.0
    is_tried: bool = False
    _pause_s: float = _FIRST_PAUSE_S

    @property
    def is_open(self) -> bool:
        """Whether requests are refused, but for one that tries the address."""
        return self.failures >= _MOST_FAILURES

    def allows(self, now_s: float) -> bool:
        """Whether a request may pass now."""
        return not self.is_open or (now_s >= self.opens_at_s and not self.is_tried)

    def enter(self) -> None:
        """Let a request that it allows pass."""
        self.is_tried = self.is_open

    def succeed(self) -> None:
        """Learn that a request was answered."""
        self.failures, self.is_tried, self._pause_s = 0, False, _FIRST_PAUSE_S

    def fail(self, now_s: float) -> None:
        """Learn that a request was not answered."""
        if self.is_tried:
            self._pause_s = min(2 * self._pause_s, _MOST_PAUSE_S)
        self.is_tried = False
        self.failures += 1
        if self.is_open:
            self.opens_at_s = now_s + self._pause_s

    def leave(self) -> None:
        """End a request of which nothing was learned, because its caller gave up."""
        self.is_tried = False
