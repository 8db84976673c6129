"""When the next group commit is due, which callers wait for it, and whether the disk accepts commits.

    IDLE ----append----> TIMED ---interval, or many bytes, or late---> DUE --commit--> IDLE
                           |                                            ^
                           +---------- a caller waits ------------------+
    A failed commit holds DUE back for `RETRY_S`.

Called in the event loop's thread.
"""

import asyncio
import time
from typing import NamedTuple

# Appended bytes that are committed before the interval ends: about two hundred served lists. A commit and a batch cost
# the same processor time however many events are in them.
COMMIT_BYTES = 256 * 1024
# After this share of the interval an append makes the commit due at once: the loop is awake, so the timer is saved.
_LATE = 0.8
# The pause after the disk refused.
RETRY_S = 0.25


class _Waiter(NamedTuple):
    last_seq: int
    done: "asyncio.Future[bool]"

    def resolve(self, *, durable: bool) -> None:
        if not self.done.done():
            self.done.set_result(durable)


class CommitSchedule:
    """The schedule of one spool; an event waits at most `interval_s` for its commit."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._due = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._late_at_s = 0.0
        self._waiters: list[_Waiter] = []
        # The earliest time of the next attempt after a failed commit; None after a successful one.
        self._retry_at_s: float | None = None

    @property
    def is_holding_back(self) -> bool:
        """Whether the disk refused a moment ago."""
        return self._retry_at_s is not None and time.monotonic() < self._retry_at_s

    def appended(self, uncommitted_bytes: int) -> None:
        """Schedule the commit of an appended event."""
        if self._timer is None:
            self._start_timer()
        elif uncommitted_bytes >= COMMIT_BYTES or time.monotonic() >= self._late_at_s:
            self._due.set()

    def _start_timer(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._interval_s, self._due.set)
        self._late_at_s = time.monotonic() + _LATE * self._interval_s

    def when_durable(self, last_seq: int) -> "asyncio.Future[bool]":
        """Make a commit due; return a future: True once the number is durable, False if the disk refuses."""
        waiter = _Waiter(last_seq, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        self._due.set()
        return waiter.done

    def make_due(self) -> None:
        """Make a commit due now."""
        self._due.set()

    def begin(self) -> None:
        """Note that a commit begins."""
        self._due.clear()
        self.cancel_timer()

    def succeeded(self, durable_seq: int) -> bool:
        """Resolve the waiters up to a number; return whether the commit before had failed."""
        had_failed, self._retry_at_s = self._retry_at_s is not None, None
        while self._waiters and self._waiters[0].last_seq <= durable_seq:
            self._waiters.pop(0).resolve(durable=True)
        return had_failed

    def failed(self) -> bool:
        """Refuse all waiters and hold the next commit back; return whether the commit before had succeeded."""
        is_first, self._retry_at_s = self._retry_at_s is None, time.monotonic() + RETRY_S
        refused, self._waiters = self._waiters, []
        for waiter in refused:
            waiter.resolve(durable=False)
        return is_first

    def schedule_rest(self) -> None:
        """Schedule the commit of events that the last one did not include, at once if a caller waits."""
        if self._waiters:
            self._due.set()
        elif self._timer is None:
            self._start_timer()

    async def wait(self) -> None:
        """Wait until a commit is due and the disk may be tried."""
        await self._due.wait()
        if self._retry_at_s is not None:
            await asyncio.sleep(max(0.0, self._retry_at_s - time.monotonic()))

    def cancel_timer(self) -> None:
        """Cancel the timer of the next commit."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
