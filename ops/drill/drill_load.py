"""The load under which a drill runs: the load test's open loop without an end, every outcome kept.

The invariant: every request that was sent gives one sample, at the time it was meant to be sent. It is sent again up to
twice, and a sample says how often it was: so one run tells what a client with no, one or two retries would have seen.
"""

import asyncio
import contextlib
import random
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ops.drill.ledger import Ledger
from ops.drill.witness import Witness
from ops.load.attack import Attack, ClientRules
from ops.load.http_connection import Client
from ops.load.outcome import Kind, Outcome
from ops.load.pacing import constant
from ops.load.population import Target, discover
from ops.load.summary import Histogram
from ops.load.traffic import Mix

MOST_RETRIES = 2
_CONNECTIONS = 64
_FOREVER_S = 7 * 86400.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One request.

    Attributes:
        at_s: When it was meant to be sent, on the drill's clock.
        latency_s: From then until its answer was complete, or it was given up.
        kind: A list or feedback.
        attempts: How often it was tried.
        retry_cause: The failure before the last retry; None without a retry.
        failure: The cause, None for a good answer; `refused` for feedback refused with Retry-After.
    """

    at_s: float
    latency_s: float
    kind: Kind
    attempts: int
    retry_cause: str | None
    failure: str | None


class Load:
    """A context in which requests are sent.

    Args:
        target: Where the system answers.
        models_dir: Where its models are, to learn users and items from.
        rate_rps: Requests per second.
        seed: Gives users, kinds and events.
        start_s: What is 0 on the drill's clock, in monotonic seconds.
        ledger: Told of every acknowledgement.
    """

    def __init__(
        self, target: Target, models_dir: Path, rate_rps: float, seed: int, start_s: float, ledger: Ledger
    ) -> None:
        self._target = target
        self._models_dir = models_dir
        self._rate_rps = rate_rps
        self._seed = seed
        self._start_s = start_s
        self._ledger = ledger
        self._client = Client(target.host, target.port, _CONNECTIONS)
        self._attack: Attack | None = None
        self._sending: asyncio.Task[float] | None = None
        self.samples: list[Sample] = []
        self.lag = Histogram()

    async def __aenter__(self) -> Self:
        """Learn ids, and begin to send.

        Raises:
            RunError: Nothing answers.
        """
        population = await discover(self._client, self._target, None, self._models_dir)
        traffic_rng, jitter_rng = (
            random.Random(f"{self._seed}/{use}")  # noqa: S311  # chance that can be repeated, not secrets
            for use in ("traffic", "jitter")
        )
        traffic = Witness(
            population,
            Mix(),
            traffic_rng,
            headers=self._target.headers,
            base_path=self._target.base_path,
            # Keys must differ between runs, or the service would take a second run's events for copies.
            run_id=f"chaos-{secrets.token_hex(6)}",
            ledger=self._ledger,
            clock=self._now_s,
        )
        self._attack = Attack(self._client, traffic, ClientRules(retries=MOST_RETRIES), jitter_rng, self._add)
        self._sending = asyncio.create_task(self._attack.run(constant(self._rate_rps, _FOREVER_S)))
        return self

    async def __aexit__(self, *_: object) -> None:
        """Send no more, and wait for what is under way."""
        if self._attack is not None and self._sending is not None:
            self._attack.stop()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sending
        await self._client.aclose()

    def _now_s(self) -> float:
        return time.monotonic() - self._start_s

    def _add(self, outcome: Outcome) -> None:
        self.lag.add(outcome.lag_s)
        sent_s = self._now_s() - outcome.latency_s
        self.samples.append(
            Sample(sent_s, outcome.latency_s, outcome.kind, outcome.attempts, outcome.retry_cause, outcome.failure)
        )
