"""The archive's time, which measures windows of days.

Invariant: it advances only while a consumer holds the archive, by that process's monotonic clock, and is kept in the
catalogue. So a wall clock that jumps ahead ends no window early, and a consumer that was away makes windows longer,
never shorter.
"""

import time
from collections.abc import Callable


class ArchiveClock:
    """A clock that continues from a stored time.

    Args:
        start_s: Seconds since 1970, as the catalogue has them.
        monotonic_s: Returns monotonic seconds.
    """

    def __init__(self, start_s: int, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._monotonic_s = monotonic_s
        self._start_s = start_s - monotonic_s()

    def now_s(self) -> int:
        """Return the archive's time in seconds since 1970."""
        return int(self._start_s + self._monotonic_s())
