"""The telemetry consumer job: wires `telemetry.consumer.consumer` to its archive and sinks, and stops it in order."""

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector

from service.config import Config
from service.errors import RunError
from service.event_loop import run
from service.logs import ApplicationLog
from service.metrics import collect_from
from service.models.user_erasure import ModelUserEraser
from service.preflight import claim_place, installed_archive, require_redis
from service.redis_access import open_seal, stream_of
from service.serving.admin import build_admin_app
from service.serving.listener import Listener, announce
from service.telemetry_metrics import consumer_metrics, report
from telemetry.archive.archive import Archive
from telemetry.consumer.consumer import Consumer
from telemetry.consumer.orphans import OrphanedSlots
from telemetry.consumer.sinks import CountingSink
from telemetry.errors import TelemetryError
from telemetry.failpoints import Failpoints
from telemetry.stream.redis_check import RedisRole

_log = structlog.get_logger("recollect.consumer")
# How long a stopping consumer ships what stopped replicas could not.
_SWEEP_S = 2.5
# What is left after it stays in the streams and the replicas' logs, for the next start.
_DRAIN_S = 5.0


def consume(config: Config, admin_port: int, *, claim: bool = False, supervised: bool = False) -> None:
    """Run the consumer job until SIGTERM or SIGINT.

    Args:
        config: Every setting.
        admin_port: For health, readiness and metrics, on 127.0.0.1.
        claim: Take the place in Redis over if it belongs to another archive.
        supervised: Start whatever is wrong with Redis; who started us has looked at it.

    Raises:
        UsageError: The pseudonyms' key file cannot be used.
        RunError: Redis cannot carry telemetry, the archive cannot be written, the admin port is taken, or the job died.
        TelemetryError: The Redis URL is none or another archive's, or the archive cannot be used.
    """
    _require_writable(config.archive_dir)
    if not supervised:
        require_redis(config, RedisRole.REPLICA, RedisRole.CONSUMER, claim=claim)
    elif claim:
        # If Redis is away now the place is claimed at the next start; until then nothing goes wrong.
        with suppress(TelemetryError):
            claim_place(config)
    log = ApplicationLog(config.logs, "consumer", config.log)
    log.start()
    try:
        run(_consume(config, admin_port, log))
    finally:
        log.stop()


def _require_writable(archive_dir: Path) -> None:
    """Refuse an archive that this process may not write; a disk that fails later is waited for instead."""
    try:
        archive_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        # What another consumer removes meanwhile is no obstacle.
        there = (path for path in (archive_dir, *archive_dir.iterdir()) if os.access(path, os.F_OK))
        refused = next((path for path in there if not os.access(path, os.W_OK)), None)
    except OSError as error:
        raise RunError(f"the archive {archive_dir} cannot be used: {error.strerror}") from error
    if refused is not None:
        raise RunError(f"the archive cannot be written: {refused} is read-only for this user")


async def _consume(config: Config, admin_port: int, log: ApplicationLog) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    archived = CountingSink()
    settings, failpoints, seal = config.consumer, Failpoints.parse(config.failpoint), open_seal(config)
    consumer = Consumer(
        stream_of(config, seal),
        Archive(config.archive_dir, part_bytes=settings.part_bytes, part_s=settings.part_s, failpoints=failpoints),
        [archived],
        settings,
        report,
        user_erasers=[ModelUserEraser(config.models_dir, config.pseudonymiser(), config.security_dir)],
        failpoints=failpoints,
    )
    orphans = OrphanedSlots(
        config.spool_dir,
        config.producer,
        lambda: stream_of(config, seal),
        settings.orphan_after_s,
        report,
        archive=installed_archive(config),
    )
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    collect_from(registry, lambda: consumer_metrics(consumer, archived, log))
    task = asyncio.create_task(consumer.run(), name="consumer")
    adopting = asyncio.create_task(orphans.run(), name="orphans")
    # A standby is ready too: it is there to take over.
    admin = Listener(
        build_admin_app(registry, lambda: "the consumer task has died" if task.done() else None),
        "127.0.0.1",
        admin_port,
        config.server,
    )
    waiting = asyncio.create_task(stopping.wait())
    try:
        await admin.start()
        announce(f"archiving to {config.archive_dir}, metrics and readiness at {admin.url}")
        _log.info("consumer started", archive=str(config.archive_dir))
        await asyncio.wait({task, adopting, waiting}, return_when=asyncio.FIRST_COMPLETED)
        for part in (task, adopting):
            if part.done() and (error := part.exception()) is not None:
                _log.error("consumer died", task=part.get_name(), exc_info=error)
                raise RunError(f"the consumer died: {error!r}") from error
        adopting.cancel()
        await asyncio.gather(adopting, return_exceptions=True)
        if (left := await orphans.sweep(_SWEEP_S)) > 0:
            _log.warning("slots that nobody holds keep events: they go out with the next start", slots=left)
        # Replicas stop before us, so that what is in their streams now is the last of it.
        if not task.done() and not await consumer.drain(_DRAIN_S):
            _log.warning("events not archived yet: the streams were not empty in time", waited_s=_DRAIN_S)
    finally:
        # A commit in progress is finished and the lease given back before the cancellation arrives.
        task.cancel()
        adopting.cancel()
        waiting.cancel()
        await asyncio.gather(task, adopting, waiting, return_exceptions=True)
        await admin.close()
    _log.info("consumer stopped", archived=consumer.counters.archived)
