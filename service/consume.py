"""The telemetry consumer job: wires `telemetry.consumer` to its archive and sinks, and stops it in order."""

from __future__ import annotations

import asyncio
import signal

import structlog
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector

from service.admin import build_admin_app
from service.config import Config
from service.errors import RunError
from service.listener import Listener
from service.logs import ApplicationLog
from service.loop import run
from service.metrics import collect_from
from service.telemetry_metrics import consumer_metrics, report
from telemetry.archive import Archive
from telemetry.consumer import Consumer
from telemetry.sinks import CountingSink
from telemetry.stream import RedisStream

_log = structlog.get_logger("recollect.consumer")


def consume(config: Config, admin_port: int) -> None:
    """Run the consumer job until SIGTERM or SIGINT.

    Args:
        config: every setting.
        admin_port: for health, readiness and metrics, on 127.0.0.1.

    Raises:
        RunError: the admin port is taken, or the job died.
        TelemetryError: the Redis URL is none, or the archive cannot be used.
    """
    log = ApplicationLog(config.logs, "consumer", config.log)
    log.start()
    try:
        run(_consume(config, admin_port, log))
    finally:
        log.stop()


async def _consume(config: Config, admin_port: int, log: ApplicationLog) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    archived = CountingSink()
    consumer = Consumer(
        RedisStream(config.stream_url), Archive(config.archive_dir), [archived], config.consumer, report
    )
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    collect_from(registry, lambda: consumer_metrics(consumer, archived, log))
    task = asyncio.create_task(consumer.run(), name="consumer")
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
        _log.info("consumer started", archive=str(config.archive_dir))
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if task.done() and (error := task.exception()) is not None:
            _log.error("consumer died", exc_info=error)
            raise RunError(f"the consumer died: {error!r}") from error
    finally:
        # A commit in progress is finished and the lease given back before the cancellation arrives.
        task.cancel()
        waiting.cancel()
        await asyncio.gather(task, waiting, return_exceptions=True)
        await admin.close()
    _log.info("consumer stopped", archived=consumer.counters.archived)
