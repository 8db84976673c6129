"""The load of a drill: the endless open loop of the load test, with every outcome kept.

Invariant: every request gives one sample, at its intended send time. It is retried up to twice and the sample counts
its attempts, so that one run shows the results of clients with no, one and two retries.
"""

import asyncio
import contextlib
import random
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ops.drill.observed_traffic import ObservedTraffic
from ops.drill.oracle import Oracle
from ops.load.attack import Attack, ClientRules
from ops.load.http_connection import HttpClient
from ops.load.outcome import Kind, Outcome
from ops.load.pacing import constant
from ops.load.population import Target, discover
from ops.load.summary import Histogram
from ops.load.traffic import Mix

MAX_RETRIES = 2
_CONNECTIONS = 64
_RULES = ClientRules(retries=MAX_RETRIES)
_FOREVER_S = 7 * 86400.0


@dataclass(frozen=True, slots=True)
class RequestSample:
    """One request.

    Attributes:
        at_s: Its intended send time, on the drill's clock.
        latency_s: From then until its answer was complete, or it was given up.
        kind: A list or feedback.
        attempts: How often it was sent.
        retry_cause: Why the last but one attempt failed, None if there was one attempt.
        failure: The cause, None for a good answer; `refused` for feedback refused with Retry-After.
        lag_s: How late it left: how long the load itself did not run.
    """

    at_s: float
    latency_s: float
    kind: Kind
    attempts: int
    retry_cause: str | None
    failure: str | None
    lag_s: float = 0.0


class DrillLoad:
    """A context in which requests are sent.

    Args:
        target: The address of the system.
        models_dir: Its models, from which users and items are read.
        rate_rps: Requests per second.
        seed: Decides users, kinds and events.
        start_s: The zero of the drill's clock, in monotonic seconds.
        oracle: Records every acknowledgement.
        rules: How a client retries.
        connections: How many connections it has at most.
    """

    def __init__(
        self,
        target: Target,
        models_dir: Path,
        rate_rps: float,
        seed: int,
        start_s: float,
        oracle: Oracle,
        rules: ClientRules = _RULES,
        connections: int = _CONNECTIONS,
    ) -> None:
        self._rules = rules
        self._target = target
        self._models_dir = models_dir
        self._rate_rps = rate_rps
        self._seed = seed
        self._start_s = start_s
        self._oracle = oracle
        self._client = HttpClient(target.host, target.port, connections)
        self._attack: Attack | None = None
        self._sending: asyncio.Task[float] | None = None
        self.samples: list[RequestSample] = []
        self.lag = Histogram()

    async def __aenter__(self) -> Self:
        """Read the ids, and start sending.

        Raises:
            RunError: The system does not answer.
        """
        population = await discover(self._client, self._target, None, self._models_dir)
        traffic_rng, jitter_rng = (
            random.Random(f"{self._seed}/{use}")  # noqa: S311  # repeatable, not secret
            for use in ("traffic", "jitter")
        )
        traffic = ObservedTraffic(
            population,
            Mix(),
            traffic_rng,
            headers=self._target.headers,
            base_path=self._target.base_path,
            # Unique, or the service would take a second run's events for duplicates.
            run_id=f"chaos-{secrets.token_hex(6)}",
            oracle=self._oracle,
            clock=self._now_s,
        )
        self._attack = Attack(self._client, traffic, self._rules, jitter_rng, self._add)
        self._sending = asyncio.create_task(self._attack.run(constant(self._rate_rps, _FOREVER_S)))
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop sending, and wait for open requests."""
        if self._attack is not None and self._sending is not None:
            self._attack.stop()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sending
        await self._client.aclose()

    def _now_s(self) -> float:
        return time.monotonic() - self._start_s

    def _add(self, outcome: Outcome) -> None:
        self.lag.add(outcome.lag_s)
        at_s = self._now_s() - outcome.latency_s
        cause, failure = outcome.retry_cause, outcome.failure
        self.samples.append(
            RequestSample(at_s, outcome.latency_s, outcome.kind, outcome.attempts, cause, failure, outcome.lag_s)
        )
