"""The consumer job: connects the telemetry consumer to its archive and sinks, and stops it in order."""

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector

from service.config import Config
from service.errors import RunError
from service.event_loop import run
from service.generation.erasure.list_erasure import GeneratedListEraser
from service.logs import ApplicationLog
from service.metrics import collect_from
from service.models.publication.user_erasure import ModelUserEraser
from service.preflight import claim_namespace, installed_archive, require_redis
from service.redis_access import load_seal, redis_feed, redis_stream
from service.serving.admin import build_admin_app
from service.serving.http.listener import Listener, announce
from service.telemetry_metrics import consumer_metrics, log_note
from telemetry.archive.archive import Archive
from telemetry.consumer.consumer import Consumer
from telemetry.consumer.live_feed import LiveFeed
from telemetry.consumer.orphans import OrphanedSlots
from telemetry.consumer.sinks import CountingSink
from telemetry.erasure.erasure import UserEraser
from telemetry.errors import TelemetryError
from telemetry.failpoints import Failpoints
from telemetry.pseudonym import Pseudonymiser
from telemetry.stream.redis_check import RedisRole

_log = structlog.get_logger("recollect.consumer")
# A stopping consumer ships the events of stopped replicas for this long.
_SWEEP_S = 2.5
# Events left after it stay in the streams and the write-ahead logs for the next start.
_DRAIN_S = 5.0


def consume(config: Config, admin_port: int, *, claim: bool = False, supervised: bool = False) -> None:
    """Run the consumer job until SIGTERM or SIGINT.

    `claim` takes over the namespace in Redis from another archive. A `supervised` job starts whatever the state of
    Redis, which its supervisor has checked.

    Raises:
        UsageError: The pseudonyms' key file cannot be used.
        RunError: Redis cannot carry telemetry, the archive cannot be written, the admin port is taken, or the job died.
        TelemetryError: The Redis URL is malformed or another archive's, or the archive cannot be used.
    """
    _require_writable(config.archive_dir)
    if not supervised:
        require_redis(config, RedisRole.REPLICA, RedisRole.CONSUMER, claim=claim)
    elif claim:
        # If Redis is unreachable, the next start claims the namespace.
        with suppress(TelemetryError):
            claim_namespace(config)
    log = ApplicationLog(config.logs, "consumer", config.log)
    log.start()
    try:
        run(_consume(config, admin_port, log))
    finally:
        log.stop()


def _user_erasers(config: Config) -> list[UserEraser]:
    key = config.pseudonym_key()
    return [
        ModelUserEraser(config.models_dir, Pseudonymiser(key), config.security_dir, config.checkpoints_dir),
        GeneratedListEraser(config.generated_dir, config.models_dir, key, config.failpoint),
    ]


def _require_writable(archive_dir: Path) -> None:
    """Refuse an archive that this process may not write. The consumer retries if the disk fails later."""
    try:
        archive_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Another consumer may remove a path meanwhile.
        present = (path for path in (archive_dir, *archive_dir.iterdir()) if os.access(path, os.F_OK))
        refused = next((path for path in present if not os.access(path, os.W_OK)), None)
    except OSError as error:
        raise RunError(f"The archive {archive_dir} cannot be used: {error.strerror}.") from error
    if refused is not None:
        raise RunError(f"The archive cannot be written: {refused} is read-only for this user.")


async def _consume(config: Config, admin_port: int, log: ApplicationLog) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    archived = CountingSink()
    settings, failpoints, seal = config.consumer, Failpoints.parse(config.failpoint), load_seal(config)
    live = LiveFeed(redis_feed(config), config.state_dir, config.live, log_note, failpoints=failpoints)
    consumer = Consumer(
        redis_stream(config, seal),
        Archive(config.archive_dir, part_bytes=settings.part_bytes, part_s=settings.part_s, failpoints=failpoints),
        [archived],
        settings,
        log_note,
        user_erasers=_user_erasers(config),
        live=live,
        failpoints=failpoints,
    )
    orphans = OrphanedSlots(
        config.spool_dir,
        config.producer,
        lambda: redis_stream(config, seal),
        settings.orphan_after_s,
        log_note,
        archive=installed_archive(config),
    )
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    collect_from(registry, lambda: consumer_metrics(consumer, archived, live.counters, log))
    consuming = asyncio.create_task(consumer.run(), name="consumer")
    shipping_orphans = asyncio.create_task(orphans.run(), name="orphans")
    # A standby is ready too, because it can take over.
    admin = Listener(
        build_admin_app(registry, lambda: "The consumer task has died." if consuming.done() else None),
        config.server.admin_host,
        admin_port,
        config.server,
    )
    stop_requested = asyncio.create_task(stopping.wait())
    try:
        await admin.start()
        announce(f"Archiving to {config.archive_dir}, metrics and readiness at {admin.url}.")
        _log.info("consumer started", archive=str(config.archive_dir))
        await asyncio.wait({consuming, shipping_orphans, stop_requested}, return_when=asyncio.FIRST_COMPLETED)
        for task in (consuming, shipping_orphans):
            if task.done() and (error := task.exception()) is not None:
                _log.error("consumer died", task=task.get_name(), exc_info=error)
                raise RunError(f"The consumer died: {error!r}.") from error
        shipping_orphans.cancel()
        await asyncio.gather(shipping_orphans, return_exceptions=True)
        if (left := await orphans.ship_all(_SWEEP_S)) > 0:
            _log.warning("orphaned slots keep events until the next start", slots=left)
        # Replicas stop before the consumer, so their streams grow no more.
        if not consuming.done() and not await consumer.drain(_DRAIN_S):
            _log.warning("streams not empty in time", waited_s=_DRAIN_S)
    finally:
        # The consumer finishes a commit in progress and releases the lease before it handles the cancellation.
        tasks: tuple[asyncio.Task[Any], ...] = (consuming, shipping_orphans, stop_requested)
        for running in tasks:
            running.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await admin.close()
    _log.info("consumer stopped", archived=consumer.counters.archived)
