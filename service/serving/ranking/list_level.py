"""The degradation level of one list, from the time that its deadline leaves.

- None: scores with the user's live state.
- `trained`: scores of the user as trained; what the user saw since is left out all the same.
- `cluster`: what is popular in the user's cluster, a look-up.
- `popular`: what is popular.

Invariant: a list takes the best level whose expected time fits, and never fails for lack of time.
"""

from typing import Final

from service.lists.list_request import ListLevel

LEVELS: Final[tuple[ListLevel | None, ...]] = (None, "trained", "cluster", "popular")
# Shares of a new measurement in the mean and in the mean deviation, and how many deviations are added (RFC 6298).
_MEAN_SHARE: Final = 1 / 8
_DEVIATION_SHARE: Final = 1 / 4
_DEVIATIONS: Final = 4.0
# A level that is passed over is expected to take a little less each time, so that it is tried again.
_RELIEF: Final = 0.99


class LevelCosts:
    """How long lists of each level take, by exponential averages."""

    def __init__(self) -> None:
        self._mean_s: dict[ListLevel | None, float] = {}
        self._deviation_s: dict[ListLevel | None, float] = {}

    def expected_s(self, level: ListLevel | None) -> float:
        """Return the time within which a list of a level is nearly always made; 0 before the first one."""
        return self._mean_s.get(level, 0.0) + _DEVIATIONS * self._deviation_s.get(level, 0.0)

    def observe(self, level: ListLevel | None, took_s: float) -> None:
        """Learn from a list."""
        mean_s = self._mean_s.get(level)
        if mean_s is None:
            self._mean_s[level], self._deviation_s[level] = took_s, took_s / 2
            return
        error_s = took_s - mean_s
        self._mean_s[level] = mean_s + _MEAN_SHARE * error_s
        self._deviation_s[level] += _DEVIATION_SHARE * (abs(error_s) - self._deviation_s[level])

    def level_for(self, left_s: float) -> ListLevel | None:
        """Return the best level whose list is expected within a time; the last one if none is."""
        for level in LEVELS[:-1]:
            if self.expected_s(level) <= left_s:
                return level
            if level in self._mean_s:
                self._mean_s[level] *= _RELIEF
                self._deviation_s[level] *= _RELIEF
        return LEVELS[-1]
