"""The open loop: every request is sent at its time, whether or not earlier ones are answered.

Invariant: the loop never waits for an answer, and each request has exactly one `Outcome`. At most rate x deadline
requests are open, because each ends at its deadline.
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ops.load.http_connection import Answer, Broken, HttpClient
from ops.load.outcome import Outcome
from ops.load.traffic import AnswerCheck, LoadRequest, Traffic

_RETRIED_STATUSES = frozenset({502, 503, 504})
_RETRIED_BREAKS = frozenset({"connect", "reset", "eof", "silent"})
_RETRY_JITTER_S = (0.010, 0.050)
# Event loops round to whole milliseconds: a shorter sleep would spin.
_SHORTEST_SLEEP_S = 0.001
_LONGEST_SLEEP_S = 0.2
_BURST = 16


@dataclass(frozen=True)
class ClientRules:
    """The simulated client: retries after a broken connection, 502, 503 or 504, until a deadline per request.

    With `attempt_s`, it also retries after an attempt that was not answered for so long, on a new connection.
    """

    retries: int = 1
    deadline_s: float = 2.0
    attempt_s: float | None = None


class Attack:
    """One run of the open loop; `rng` draws the jitter before a retry."""

    def __init__(
        self,
        client: HttpClient,
        traffic: Traffic,
        rules: ClientRules,
        rng: random.Random,
        on_outcome: Callable[[Outcome], None],
    ) -> None:
        self._client = client
        self._traffic = traffic
        self._rules = rules
        self._rng = rng
        self._on_outcome = on_outcome
        self._stopping = False

    def stop(self) -> None:
        """Send no further request; open ones are finished."""
        self._stopping = True

    async def run(self, send_times_s: Iterable[float]) -> float:
        """Send one request at each of ascending seconds since the start, and wait for their outcomes.

        Returns:
            Seconds from the start until the last request was sent.
        """
        start_s = time.monotonic()
        async with asyncio.TaskGroup() as group:
            unyielded = 0
            for offset_s in send_times_s:
                intended_s = start_s + offset_s
                while (wait_s := intended_s - time.monotonic()) > 0 and not self._stopping:
                    unyielded = 0
                    await asyncio.sleep(min(max(wait_s, _SHORTEST_SLEEP_S), _LONGEST_SLEEP_S))
                if self._stopping:
                    break
                # A loop behind its schedule must still read answers, or it never catches up.
                unyielded += 1
                if unyielded == _BURST:
                    unyielded = 0
                    await asyncio.sleep(0)
                group.create_task(self._send(self._traffic.next(), intended_s))
            return time.monotonic() - start_s

    async def _send(self, request: LoadRequest, intended_s: float) -> None:
        lag_s = max(time.monotonic() - intended_s, 0.0)
        attempt = _Attempts()
        try:
            async with asyncio.timeout(intended_s + self._rules.deadline_s - time.monotonic()):
                await self._try(request, attempt)
        except TimeoutError:
            attempt.check = AnswerCheck(
                "timeout", f"{request.kind} was not answered within {self._rules.deadline_s:g} s"
            )
        self._on_outcome(
            Outcome(
                kind=request.kind,
                user_class=request.user_class,
                latency_s=time.monotonic() - intended_s,
                lag_s=lag_s,
                attempts=attempt.count,
                status=attempt.status,
                failure=attempt.check.failure,
                detail=attempt.check.detail,
                retry_cause=attempt.retry_cause,
                degraded=attempt.check.degraded,
                shortfall=attempt.check.shortfall,
                events=attempt.check.events,
            )
        )

    async def _try(self, request: LoadRequest, attempt: "_Attempts") -> None:
        while True:
            attempt.count += 1
            result = await self._exchange(request.wire, attempt.count)
            if isinstance(result, Broken):
                attempt.status = None
                attempt.check = AnswerCheck(result.cause, result.detail)
                is_retryable = result.cause in _RETRIED_BREAKS
            else:
                attempt.status = result.status
                attempt.check = self._traffic.check_answer(request, result)
                is_retryable = result.status in _RETRIED_STATUSES
            if not is_retryable or attempt.count > self._rules.retries:
                return
            attempt.retry_cause = attempt.check.failure
            # The same bytes have the same Idempotency-Key: a request whose answer was lost must not count twice.
            await asyncio.sleep(self._rng.uniform(*_RETRY_JITTER_S))

    async def _exchange(self, wire: bytes, count: int) -> Answer | Broken:
        """Send a request; the last attempt has all the time that is left."""
        limit_s = self._rules.attempt_s if count <= self._rules.retries else None
        try:
            async with asyncio.timeout(limit_s):
                return await self._client.exchange(wire, fresh=limit_s is None and self._rules.attempt_s is not None)
        except TimeoutError:
            if limit_s is None:
                raise
            # They may lead to the same dead machine; the Python client closes them, too.
            self._client.close_idle()
            return Broken("silent", f"there was no answer within {limit_s:g} s")


@dataclass
class _Attempts:
    """The state of a request; read when its deadline ends it early."""

    count: int = 0
    status: int | None = None
    check: AnswerCheck = field(default_factory=AnswerCheck)
    retry_cause: str | None = None
