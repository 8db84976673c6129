"""Metrics of telemetry, and its notes in the application log."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from prometheus_client import CollectorRegistry, generate_latest
from structlog.testing import capture_logs

from service.candidates.candidate_client import CandidateClient
from service.candidates.settings import CandidatesConfig
from service.config import LogConfig
from service.live.feed_follower import FeedFollower
from service.live.live_state import LiveState
from service.logs import ApplicationLog
from service.metrics import Metrics, admission_metrics, candidate_metrics, collect_from, key_metrics, live_metrics
from service.security.gate import Gate
from service.security.key_file import KeyFile
from service.security.key_watch import KeyWatcher
from service.serving.http.admission import Admission
from service.telemetry_metrics import consumer_metrics, log_note, producer_metrics
from telemetry import notes
from telemetry.archive.archive import Archive
from telemetry.consumer.consumer import Consumer
from telemetry.consumer.sinks import CountingSink
from telemetry.counters import ConsumerCounters, LiveCounters, ProducerCounters
from telemetry.events import Feedback
from telemetry.live.live_feed_reader import LiveFeedReader
from telemetry.producer import Producer
from telemetry.settings import ConsumerSettings, ProducerSettings
from telemetry.stream.memory_feed_stream import MemoryFeed, MemoryFeedStream
from telemetry.stream.memory_stream import MemoryServer, MemoryStream
from tests.support import sample_events


@pytest.fixture
def log(tmp_path: Path) -> ApplicationLog:
    return ApplicationLog(tmp_path / "logs", "test", LogConfig(queue_lines=1))


@pytest.fixture
def producer(tmp_path: Path) -> Iterator[Producer]:
    producer = Producer(tmp_path / "spool", 0, ProducerSettings(), MemoryStream(MemoryServer()))
    yield producer
    producer.close()


def feedback(event_id: str, user_id: str = "u") -> Feedback:
    return sample_events.feedback(event_id=event_id, user_id=user_id)


async def test_a_replicas_scrape_shows_every_counter_by_class(producer: Producer, log: ApplicationLog) -> None:
    """Events by class, and every other counter under a name with its unit."""
    producer.offer(sample_events.served(event_id="event-0001"))
    producer.offer(sample_events.served(event_id="event-0002", user_id="\ud800"))
    registry = CollectorRegistry()
    collect_from(registry, lambda: producer_metrics(producer, log))
    for outcome, count in (("offered", 2), ("accepted", 1), ("refused", 0), ("dropped", 1)):
        assert registry.get_sample_value(f"recollect_telemetry_{outcome}_total", {"class": "served"}) == count
        assert registry.get_sample_value(f"recollect_telemetry_{outcome}_total", {"class": "feedback"}) == 0
    assert registry.get_sample_value("recollect_telemetry_unarchived_events") == 1
    assert registry.get_sample_value("recollect_telemetry_connected") == 0
    text = generate_latest(registry).decode()
    plain = {spec.name for spec in dataclasses.fields(ProducerCounters)} - {"served", "feedback", "system", "item"}
    for name in plain - {"last_error"}:
        assert f"\nrecollect_telemetry_{name}" in text
    # What went wrong last may quote anything; it is in the log, not in a metric.
    assert "last_error" not in text


def test_a_consumers_scrape_shows_every_counter(tmp_path: Path, log: ApplicationLog) -> None:
    """Names of times end in seconds, states are gauges, and the rest are totals."""
    archive = Archive(tmp_path / "archive")
    consumer = Consumer(MemoryStream(MemoryServer()), archive, [], ConsumerSettings(), log_note)
    consumer.counters.archived = 7
    consumer.counters.commit_s = 0.25
    consumer.counters.active = True
    registry = CollectorRegistry()
    archived = CountingSink()
    archived.counts.update({"rating": 2, "served": 5})
    collect_from(registry, lambda: consumer_metrics(consumer, archived, LiveCounters(), log))
    assert registry.get_sample_value("recollect_consumer_archived_total") == 7
    assert registry.get_sample_value("recollect_consumer_events_total", {"kind": "rating"}) == 2
    assert registry.get_sample_value("recollect_consumer_commit_seconds_total") == 0.25
    assert registry.get_sample_value("recollect_consumer_active") == 1
    text = generate_latest(registry).decode()
    for spec in dataclasses.fields(ConsumerCounters):
        if spec.name not in {"last_error", "commit_s"}:
            assert f"\nrecollect_consumer_{spec.name}" in text


@pytest.mark.usefixtures("restored_root")
def test_dropped_log_lines_are_counted(producer: Producer, log: ApplicationLog, tmp_path: Path) -> None:
    """A line lost to a full disk shows in the scrape."""
    (tmp_path / "logs" / "test.log").symlink_to("/dev/full")
    log.start()
    structlog.get_logger("recollect.test").error("lost")
    log.stop()
    registry = CollectorRegistry()
    collect_from(registry, lambda: producer_metrics(producer, log))
    dropped = registry.get_sample_value("recollect_log_lines_dropped_total")
    assert dropped is not None
    assert dropped == log.dropped_lines >= 1


@pytest.mark.parametrize(
    ("note", "expected"),
    [
        (notes.Connected(), {"event": "Connected", "log_level": "info"}),
        (
            notes.Dropped(count=3, of_class="served", reason="no budget"),
            {"event": "Dropped", "log_level": "warning", "count": 3, "of_class": "served", "reason": "no budget"},
        ),
        (
            notes.SinkFailed(sink="s", error="e"),
            {"event": "SinkFailed", "log_level": "warning", "sink": "s", "error": "e"},
        ),
        (notes.Committed(archived=1, deduplicated=0, dead_lettered=0, duration_s=0.1), None),
    ],
)
def test_notes_become_lines_of_the_log(note: Any, expected: dict[str, Any] | None) -> None:
    """A note that may need an operator is a warning; commits are counted and not logged."""
    with capture_logs() as lines:
        log_note(note)
    assert lines == ([] if expected is None else [expected])


def test_every_metric_of_an_alarm_exists_from_the_start(
    producer: Producer, log: ApplicationLog, tmp_path: Path
) -> None:
    """Every metric named in docs/operations.md is in the first scrape."""
    metrics = Metrics()
    collect_from(metrics.registry, lambda: producer_metrics(producer, log))
    metrics.route("/recommend/{user_id}")
    gate = Gate()
    watcher = KeyWatcher(KeyFile(tmp_path / "security"), gate, lambda _: None, lambda _: None)
    collect_from(metrics.registry, lambda: key_metrics(gate, watcher))
    collect_from(metrics.registry, lambda: admission_metrics(Admission(0.1, 0.1)))
    state = LiveState(100)
    follower = FeedFollower(LiveFeedReader(MemoryFeedStream(MemoryFeed()), tmp_path), state)
    collect_from(metrics.registry, lambda: live_metrics(state, follower))
    candidates = CandidateClient(CandidatesConfig("http://127.0.0.1:1"))
    collect_from(metrics.registry, lambda: candidate_metrics(candidates))
    consumer = Consumer(MemoryStream(MemoryServer()), Archive(tmp_path / "archive"), [], ConsumerSettings(), log_note)
    registry = CollectorRegistry()
    collect_from(registry, lambda: consumer_metrics(consumer, CountingSink(), LiveCounters(), log))
    scraped = (generate_latest(metrics.registry) + generate_latest(registry)).decode()
    samples = {line.split("{")[0].split(" ")[0] for line in scraped.splitlines() if not line.startswith("#")}
    # Samples of a histogram have names of their own.
    samples |= {line.split(" ")[2] for line in scraped.splitlines() if line.startswith("# TYPE ")}
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    alarms = {word.partition("{")[0] for word in page.split("`") if word.startswith("recollect_")}
    assert len(alarms) > 5
    assert alarms <= samples
