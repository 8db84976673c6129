"""The metrics of the service, on a registry of their own.

Label children are created once, because looking one up costs more than counting.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.candidates.candidate_client import CandidateClient
from service.live.feed_follower import FeedFollower
from service.live.live_state import LiveState
from service.models.snapshot import ModelSnapshot
from service.security.gate import Gate
from service.security.key_watch import KeyWatcher
from service.serving.http.admission import Admission

# The levels that a replica sets itself; see `service.serving.replica.degradation`.
DEGRADATION_LEVELS: Final = ("stale_model", "stale", "popular_candidates")
# Statuses with an alarm in docs/operations.md.
ALARMING: Final = (401,)
_LIVE_DELAY_BUCKETS_S = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0)
_LATENCY_BUCKETS_S = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


class RouteMetrics:
    """The metrics of one route."""

    __slots__ = ("_requests", "_route", "_statuses", "seconds")

    def __init__(self, route: str, requests: Counter, seconds: Histogram) -> None:
        self._route = route
        self._requests = requests
        # Created at 0, because an alarm does not see the first increase of a counter that starts at 1.
        self._statuses = {status: requests.labels(route, str(status)) for status in ALARMING}
        self.seconds = seconds.labels(route)

    def count_answer(self, status: int, seconds: float) -> None:
        """Count one answer."""
        counter = self._statuses.get(status)
        if counter is None:
            counter = self._statuses[status] = self._requests.labels(self._route, str(status))
        counter.inc()
        self.seconds.observe(seconds)


class Metrics:
    """The metrics of one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._requests = Counter(
            "recollect_requests", "Answers by route and status.", ["route", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "recollect_request_seconds", "Seconds from the start of a request's handler to its answer.", ["route"],
            buckets=_LATENCY_BUCKETS_S, registry=self.registry,
        )  # fmt: skip
        self._degraded = Counter(
            "recollect_degraded", "Degraded lists by degradation level.", ["level"], registry=self.registry
        )
        for level in DEGRADATION_LEVELS:
            # Created at 0, as above.
            self._degraded.labels(level)
        self._model = Gauge(
            "recollect_model_info", "1 for the served model.", ["version", "algorithm"], registry=self.registry
        )
        self.model_swaps = Counter("recollect_model_swaps", "Models swapped in.", registry=self.registry)
        self.model_refusals = Counter(
            "recollect_model_refusals", "Models refused; the served one stayed.", registry=self.registry
        )
        self.faults = Counter(
            "recollect_handler_faults", "Requests answered 500: an internal error.", registry=self.registry
        )
        self.live_delay = Histogram(
            "recollect_live_delay_seconds", "Seconds from the receipt of an event, on any replica, to its use here.",
            buckets=_LIVE_DELAY_BUCKETS_S, registry=self.registry,
        )  # fmt: skip
        self._routes: dict[str, RouteMetrics] = {}

    def route(self, name: str) -> RouteMetrics:
        """Return the metrics of a route, the same object each time."""
        found = self._routes.get(name)
        if found is None:
            found = self._routes[name] = RouteMetrics(name, self._requests, self._seconds)
        return found

    def count_degraded(self, level: str) -> None:
        """Count one degraded list."""
        self._degraded.labels(level).inc()

    def count_swap(self, snapshot: ModelSnapshot) -> None:
        """Count a swap and record the served model."""
        self.model_swaps.inc()
        self._model.clear()
        self._model.labels(snapshot.version, snapshot.algorithm).set(1)


def admission_metrics(admission: Admission) -> Iterator[Metric]:
    """Yield the limit, the open and the refused requests by kind, read now."""
    kinds = (
        ("list", admission.lists),
        ("feedback", admission.feedback),
        ("many", admission.many),
        ("search", admission.searches),
    )
    refused = CounterMetricFamily(
        "recollect_refused", "Requests refused with 503 by admission control.", labels=["kind"]
    )
    limits = GaugeMetricFamily("recollect_open_limit", "Limit of requests open at once.", labels=["kind"])
    opened = GaugeMetricFamily("recollect_open", "Requests open now.", labels=["kind"])
    for kind, limit in kinds:
        refused.add_metric([kind], limit.refused)
        limits.add_metric([kind], limit.limit)
        opened.add_metric([kind], limit.open)
    yield from (refused, limits, opened)


def candidate_metrics(client: CandidateClient) -> Iterable[Metric]:
    """Yield what became of the calls of the candidates service, read now."""
    yield CounterMetricFamily("recollect_candidates_calls", "Calls of the candidates service.", value=client.calls)
    yield CounterMetricFamily(
        "recollect_candidates_unanswered", "Calls that no attempt answered.", value=client.unanswered
    )
    failures = CounterMetricFamily(
        "recollect_candidates_failures", "Failed attempts to call the candidates service.", labels=["kind"]
    )
    for kind, count in client.failures.items():
        failures.add_metric([kind], count)
    yield failures
    yield GaugeMetricFamily(
        "recollect_candidates_circuits_open",
        "Addresses of the candidates service that are not asked at the moment.",
        value=client.open_circuits,
    )


def key_metrics(gate: Gate, watcher: KeyWatcher) -> Iterable[Metric]:
    """Yield the gauges of the keys in force at a gate and its watcher."""
    keyring = gate.keyring
    yield GaugeMetricFamily(
        "recollect_api_keys_enforced", "1 where requests need an API key.", value=float(keyring is not None)
    )
    yield GaugeMetricFamily(
        "recollect_api_keys_valid",
        "API keys that are valid now.",
        value=0.0 if keyring is None else keyring.count_valid(time.time()),
    )
    yield GaugeMetricFamily(
        "recollect_api_keys_age_seconds",
        "Seconds since the keys in force were last found equal to the key file.",
        value=watcher.age_s,
    )


def live_metrics(state: LiveState, follower: FeedFollower) -> Iterable[Metric]:
    """Yield the gauges of a replica's live state and of the feed behind it."""
    yield GaugeMetricFamily(
        "recollect_live_connected", "1 while the feed of live events can be read.", value=float(follower.connected)
    )
    yield GaugeMetricFamily(
        "recollect_live_silent_seconds",
        "Seconds since the last entry of the feed; the consumer writes one every second.",
        value=follower.silent_s,
    )
    yield GaugeMetricFamily(
        "recollect_live_recent_events",
        "Live events in memory because the state snapshot lacks them.",
        value=state.recent_events,
    )
    yield GaugeMetricFamily(
        "recollect_live_pending_events",
        "Events accepted here that have not come back through the feed.",
        value=state.pending_events,
    )


def collect_from(registry: CollectorRegistry, source: Callable[[], Iterable[Metric]]) -> None:
    """Register metrics that are read at scrape time."""
    registry.register(_Callback(source))


class _Callback(Collector):
    def __init__(self, source: Callable[[], Iterable[Metric]]) -> None:
        self._source = source

    def collect(self) -> Iterable[Metric]:
        return self._source()
