"""Metrics of the API keys, read at scrape time."""

import time
from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily, Metric

from service.security.gate import Gate
from service.security.key_watch import KeyWatcher


def key_metrics(gate: Gate, watcher: KeyWatcher) -> Iterable[Metric]:
    """Yield the gauges of the keys in force at a gate and its watcher."""
    ring = gate.ring
    yield GaugeMetricFamily(
        "recollect_api_keys_enforced", "1 where requests need an API key.", value=float(ring is not None)
    )
    yield GaugeMetricFamily(
        "recollect_api_keys_valid",
        "API keys that are valid now.",
        value=0.0 if ring is None else ring.count_valid(time.time()),
    )
    yield GaugeMetricFamily(
        "recollect_api_keys_age_seconds",
        "Seconds since the keys in force were last found equal to the key file.",
        value=watcher.age_s,
    )
