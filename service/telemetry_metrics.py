"""The counters and notes of telemetry as metrics and as lines of the application log.

Telemetry itself has no metrics and no logger. It provides counters and typed notes about the pipeline, never an event.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from service.logs import ApplicationLog
from telemetry import notes
from telemetry.consumer.consumer import Consumer
from telemetry.consumer.sinks import CountingSink
from telemetry.counters import LiveCounters
from telemetry.events import CLASSES
from telemetry.producer import Producer

_log = structlog.get_logger("recollect.telemetry")
# Notes that may need an operator; the others are normal operation.
_WARNINGS = (
    notes.Disconnected,
    notes.Rewound,
    notes.WatermarkDoubted,
    notes.IdentityChanged,
    notes.Dropped,
    notes.DiskFailed,
    notes.FrozenProcessEnded,
    notes.LeaseLost,
    notes.SequenceGapFound,
    notes.StreamGapFound,
    notes.StreamGapKept,
    notes.DeadLettered,
    notes.ArchiveFailed,
    notes.SinkFailed,
    notes.OrphanShipped,
    notes.EraseFailed,
    notes.RetentionBehind,
    notes.StateFailed,
    notes.FeedAway,
)
_GAUGES = {
    "in_flight",
    "unarchived_events",
    "spooled_events",
    "spooled_bytes",
    "connected",
    "active",
    "producers",
    "generation",
    "feed_connected",
    "restored",
    "snapshot_bytes",
    "snapshot_events",
    "saved_at_s",
    "unsaved_events",
}


def log_note(note: notes.Note) -> None:
    """Write a note of telemetry to the application log; commits are too frequent and only counted."""
    if isinstance(note, notes.Committed):
        return
    write = _log.warning if isinstance(note, _WARNINGS) else _log.info
    write(type(note).__name__, **dataclasses.asdict(note))


def producer_metrics(producer: Producer, log: ApplicationLog) -> Iterator[Metric]:
    """Yield a replica's telemetry counters, read now."""
    counters = producer.counters
    for outcome in ("offered", "accepted", "refused", "dropped"):
        family = CounterMetricFamily(
            f"recollect_telemetry_{outcome}", f"Events {outcome} by the spool.", labels=["class"]
        )
        for name in CLASSES:
            family.add_metric([name], getattr(getattr(counters, name), outcome))
        yield family
    yield from _plain_metrics("recollect_telemetry_", counters)
    yield from _log_metrics(log)


def consumer_metrics(
    consumer: Consumer, archived: CountingSink, live: LiveCounters, log: ApplicationLog
) -> Iterator[Metric]:
    """Yield the consumer's counters, those of live state, and the archived events by kind, read now."""
    family = CounterMetricFamily("recollect_consumer_events", "Events archived, by kind.", labels=["kind"])
    for kind, count in sorted(archived.counts.items()):
        family.add_metric([kind], count)
    yield family
    yield from _plain_metrics("recollect_consumer_", consumer.counters)
    yield from _plain_metrics("recollect_live_", live)
    yield from _log_metrics(log)


def _plain_metrics(prefix: str, counters: Any) -> Iterable[Metric]:
    for spec in dataclasses.fields(counters):
        value = getattr(counters, spec.name)
        if not isinstance(value, int | float):
            continue
        family = GaugeMetricFamily if spec.name in _GAUGES else CounterMetricFamily
        name = spec.name.removesuffix("_s") + "_seconds" if spec.name.endswith("_s") else spec.name
        yield family(prefix + name, f"{spec.name}; see telemetry/counters.py.", value=float(value))


def _log_metrics(log: ApplicationLog) -> Iterator[Metric]:
    yield CounterMetricFamily(
        "recollect_log_lines_dropped",
        "Log lines not written: the queue was full or the disk refused.",
        value=log.dropped_lines,
    )
