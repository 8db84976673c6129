"""The open loop: every request leaves at its time, whether or not earlier ones were answered.

The invariant: the loop never waits for an answer, and each request sent gives exactly one `Outcome`. At most
rate x deadline requests are under way, because every one ends at its deadline.
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ops.load.http_connection import Broken, Client
from ops.load.outcome import Outcome
from ops.load.traffic import Request, Traffic, Verdict

_RETRIED_STATUSES = frozenset({502, 503, 504})
_RETRIED_BREAKS = frozenset({"connect", "reset", "eof"})
_RETRY_JITTER_S = (0.010, 0.050)
# Event loops keep time in whole milliseconds: a shorter sleep would spin.
_SHORTEST_SLEEP_S = 0.001
_LONGEST_SLEEP_S = 0.2
_BURST = 16


@dataclass(frozen=True)
class ClientRules:
    """How the simulated client behaves; the defaults are those of the reference client.

    Attributes:
        retries: How often a request is sent again after a broken connection, 502, 503 or 504.
        deadline_s: From the intended send time to the end of the answer, retries included.
    """

    retries: int = 1
    deadline_s: float = 2.0


class Attack:
    """One run of the open loop.

    Args:
        client: Where requests go.
        traffic: What they are.
        rules: What the client does about failures.
        rng: The source of the jitter before a retry.
        on_outcome: Called once per request, in the order in which they end.
    """

    def __init__(
        self,
        client: Client,
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
        """Send no more; what is under way is finished."""
        self._stopping = True

    async def run(self, send_times_s: Iterable[float]) -> float:
        """Send one request at each time, and wait until all are answered or given up.

        Args:
            send_times_s: Seconds since the start, ascending.

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
                # A loop that is behind its schedule must still let answers in, or it would never catch up.
                unyielded += 1
                if unyielded == _BURST:
                    unyielded = 0
                    await asyncio.sleep(0)
                group.create_task(self._send(self._traffic.next(), intended_s))
            return time.monotonic() - start_s

    async def _send(self, request: Request, intended_s: float) -> None:
        lag_s = max(time.monotonic() - intended_s, 0.0)
        attempt = _Attempts()
        try:
            async with asyncio.timeout(intended_s + self._rules.deadline_s - time.monotonic()):
                await self._try(request, attempt)
        except TimeoutError:
            attempt.verdict = Verdict("timeout", f"{request.kind} was not answered within {self._rules.deadline_s:g} s")
        self._on_outcome(
            Outcome(
                kind=request.kind,
                user_class=request.user_class,
                latency_s=time.monotonic() - intended_s,
                lag_s=lag_s,
                attempts=attempt.count,
                status=attempt.status,
                failure=attempt.verdict.failure,
                detail=attempt.verdict.detail,
                healed=attempt.retried_after,
                degraded=attempt.verdict.degraded,
                shortfall=attempt.verdict.shortfall,
                events=attempt.verdict.events,
            )
        )

    async def _try(self, request: Request, attempt: "_Attempts") -> None:
        while True:
            attempt.count += 1
            result = await self._client.exchange(request.wire)
            if isinstance(result, Broken):
                attempt.status = None
                attempt.verdict = Verdict(result.cause, result.detail)
                worth_retrying = result.cause in _RETRIED_BREAKS
            else:
                attempt.status = result.status
                attempt.verdict = self._traffic.judge(request, result)
                worth_retrying = result.status in _RETRIED_STATUSES
            if not worth_retrying or attempt.count > self._rules.retries:
                return
            attempt.retried_after = attempt.verdict.failure
            # The same bytes again, so the same Idempotency-Key: a request whose answer was lost must not count twice.
            await asyncio.sleep(self._rng.uniform(*_RETRY_JITTER_S))


@dataclass
class _Attempts:
    """What is known of a request so far; read when its deadline cuts it short."""

    count: int = 0
    status: int | None = None
    verdict: Verdict = field(default_factory=Verdict)
    retried_after: str | None = None
