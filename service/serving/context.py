"""What a replica is built from, as the handlers see it."""

from dataclasses import dataclass, field
from functools import cached_property

from aiohttp import web

from service.api import wire
from service.config import Config
from service.metrics import Metrics
from service.security.gate import Gate
from service.security.security_log import SecurityLog
from service.serving.batcher import Batcher
from service.serving.idempotency import IdempotencyTable
from service.serving.store import ModelStore
from telemetry.producer import Producer
from telemetry.pseudonym import Pseudonymiser


@dataclass
class State:
    """What changes while a replica runs, beside the model.

    Attributes:
        draining: A stop was asked for; answers close their connections and readiness is refused.
        degraded: The degradation level of every list served now, or None; set by `service.serving.degradation`.
        fault: The background task that died, or None; readiness is refused from then on.
    """

    draining: bool = False
    degraded: wire.DegradationLevel | None = None
    fault: str | None = None


@dataclass(frozen=True)
class ReplicaContext:
    """The built context of one replica."""

    config: Config
    store: ModelStore
    producer: Producer
    metrics: Metrics
    state: State = field(default_factory=State)
    batcher: Batcher = field(default_factory=Batcher)
    keys: IdempotencyTable = field(default_factory=IdempotencyTable)
    pseudonyms: Pseudonymiser = field(default_factory=Pseudonymiser)
    gate: Gate = field(default_factory=Gate)

    @cached_property
    def security(self) -> SecurityLog:
        """The security log of the installation."""
        return SecurityLog(self.config.security_dir)


CONTEXT = web.AppKey("context", ReplicaContext)


def unready(context: ReplicaContext) -> str | None:
    """Say why a replica should get no requests, or None when it should."""
    if context.state.draining:
        return "This replica is draining."
    if context.state.fault is not None:
        return f"A background task of this replica has died: {context.state.fault}."
    if context.store.version is None:
        return "No model is loaded yet."
    return None
