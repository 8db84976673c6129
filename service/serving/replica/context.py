"""The components of one replica that its handlers use."""

from dataclasses import dataclass, field
from functools import cached_property

from aiohttp import web

from service.api import wire
from service.candidates.candidate_client import CandidateClient
from service.config import Config
from service.lists.filters.masks import FilterMasks
from service.live.live_state import LiveState
from service.live.live_users import LiveUsers
from service.live.window_counts import WindowCounts
from service.metrics import Metrics
from service.security.gate import Gate
from service.security.security_log import SecurityLog
from service.serving.catalogue.keeper import CatalogueKeeper
from service.serving.catalogue.search import CatalogueSearch
from service.serving.feedback.idempotency import IdempotencyTable
from service.serving.model.store import ModelStore
from service.serving.ranking.batcher import Batcher
from service.serving.ranking.list_level import LevelCosts
from telemetry.live.live_event import live_types
from telemetry.producer import Producer
from telemetry.pseudonym import Pseudonymiser


@dataclass
class ReplicaState:
    """The mutable state of a replica beside its model.

    Attributes:
        draining: Whether the replica is stopping: answers close their connections, and readiness is refused.
        degraded: The degradation level of every list served now, or None; set by `service.serving.replica.degradation`.
        dead_task: The background task that died, or None; readiness is refused from then on.
    """

    draining: bool = False
    degraded: wire.DegradationLevel | None = None
    dead_task: str | None = None


@dataclass(frozen=True)
class ReplicaContext:
    """The components of one replica."""

    config: Config
    store: ModelStore
    producer: Producer
    metrics: Metrics
    state: ReplicaState = field(default_factory=ReplicaState)
    batcher: Batcher = field(default_factory=Batcher)
    idempotency_keys: IdempotencyTable = field(default_factory=IdempotencyTable)
    pseudonyms: Pseudonymiser = field(default_factory=Pseudonymiser)
    gate: Gate = field(default_factory=Gate)
    filter_masks: FilterMasks = field(default_factory=FilterMasks)
    level_costs: LevelCosts = field(default_factory=LevelCosts)
    candidates: CandidateClient | None = None
    """The candidates service that the role `ranking` asks; None where a process finds candidates by itself."""

    @cached_property
    def items(self) -> CatalogueKeeper:
        """The item catalogue with the changes since the training."""
        return CatalogueKeeper(self.store, self.pseudonyms)

    @cached_property
    def search(self) -> CatalogueSearch:
        """The search of the item catalogue."""
        return CatalogueSearch()

    @cached_property
    def live(self) -> LiveUsers:
        """The live state of users."""
        lists, live = self.config.live_lists, self.config.live
        state = LiveState(lists.pending_events, live.events_per_user)
        return LiveUsers(state, lists.seen, live_types(impressions=live.impressions))

    @cached_property
    def window_counts(self) -> WindowCounts:
        """The counts of what is popular within a window."""
        return WindowCounts(self.live.state)

    @cached_property
    def security_log(self) -> SecurityLog:
        """The security log of the installation."""
        return SecurityLog(self.config.security_dir)


CONTEXT = web.AppKey("context", ReplicaContext)


def not_ready_reason(context: ReplicaContext) -> str | None:
    """Return why a replica should get no requests, or None if it is ready."""
    if context.state.draining:
        return "This replica is draining."
    if context.state.dead_task is not None:
        return f"A background task of this replica has died: {context.state.dead_task}."
    if context.store.version is None:
        return "No model is loaded yet."
    return None
