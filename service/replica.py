"""One replica from start to stop: build the context, run the background tasks, drain in order."""

import asyncio
import contextlib
import ctypes
import gc
import signal
import sys
from collections.abc import Coroutine
from typing import Any

import structlog
from threadpoolctl import threadpool_limits

from service.api.openapi import document
from service.config import Config
from service.errors import RunError
from service.event_loop import run
from service.logs import ApplicationLog
from service.metrics import Metrics, admission_metrics, collect_from
from service.preflight import installed_archive, require_place, require_redis
from service.redis_access import open_seal, stream_of
from service.security.exposure import insecure_warning, is_loopback, require_keys
from service.security.gate import Gate
from service.security.key_file import KeyFile
from service.security.key_metrics import key_metrics
from service.security.key_watch import KeyWatcher
from service.serving.admin import build_admin_app
from service.serving.admission import Admission
from service.serving.app import build_app
from service.serving.context import ReplicaContext, not_ready_reason
from service.serving.degradation import track_degradation
from service.serving.listener import Listener, announce
from service.serving.store import ModelStore
from service.serving.watcher import Watcher
from service.telemetry_metrics import producer_metrics, report
from telemetry.errors import TelemetryError
from telemetry.failpoints import Failpoints
from telemetry.producer import Producer
from telemetry.pseudonym import Pseudonymiser
from telemetry.stream.redis_check import RedisRole

_log = structlog.get_logger("recollect.replica")
# How long a stopping replica tries to ship; what it cannot, the consumer job or its next start will.
_SHIP_S = 2.0
# How long a starting replica waits for its first model before it listens without one.
_FIRST_CHECK_S = 2.0


def serve(config: Config, slot: int | None, *, insecure: bool = False, supervised: bool = False) -> None:
    """Run one replica until SIGTERM or SIGINT.

    Args:
        config: Every setting.
        slot: Its telemetry slot; None takes the lowest free one.
        insecure: Listen beyond loopback without API keys.
        supervised: Start whatever is wrong with Redis; who started us has looked at it.

    Raises:
        UsageError: The pseudonyms' key file cannot be used, or API keys are needed and there are none.
        KeysRefused: The file of the API keys cannot be used.
        RunError: Redis cannot carry telemetry, an address cannot be listened on, or a background task died.
        TelemetryError: The slot is taken, its directory cannot be used, or the Redis URL is none or another
            archive's.
    """
    # One core a replica: BLAS threads would fight the other replicas for theirs.
    threadpool_limits(1)
    _keep_freed_memory()
    pseudonyms = config.pseudonymiser()
    server = config.server
    ring = require_keys(config, server.host, server.port, insecure=insecure)
    if ring is None and not is_loopback(server.host):
        sys.stderr.write(f"recollect: {insecure_warning(server.host, server.port)}\n")
    stream = stream_of(config, open_seal(config))
    failpoints = Failpoints.parse(config.failpoint)
    found = None if supervised else require_redis(config, RedisRole.REPLICA)
    producer = Producer.open(
        config.spool_dir, slot, config.producer, stream, report, failpoints.hit, archive=installed_archive(config)
    )
    if found is not None:
        try:
            require_place(config, found, producer.archive)
        except TelemetryError:
            producer.close()
            raise
    log = ApplicationLog(config.logs, f"replica-{producer.slot}", config.log)
    log.start()
    try:
        run(_Replica(config, producer, pseudonyms, Gate(ring), log).run())
    finally:
        producer.close()
        log.stop()


def _keep_freed_memory() -> None:
    """Tell glibc to keep what scoring frees.

    Its arrays are larger than what malloc keeps by default, and fresh pages for each batch of requests cost more than
    the arithmetic on them.
    """
    with contextlib.suppress(AttributeError):
        # Another C library has no mallopt. The numbers are M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of malloc.h.
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-3, 64 << 20)
        mallopt(-1, 256 << 20)


class _Replica:
    def __init__(
        self, config: Config, producer: Producer, pseudonyms: Pseudonymiser, gate: Gate, log: ApplicationLog
    ) -> None:
        metrics = Metrics()
        self._config = config
        self._context = ReplicaContext(config, ModelStore(), producer, metrics, pseudonyms=pseudonyms, gate=gate)
        self._key_watcher = KeyWatcher(
            KeyFile(config.security_dir),
            gate,
            on_change=lambda count: _log.info("API keys in force", keys=count),
            on_problem=lambda reason: _log.error("key file not in force", reason=reason),
        )
        models = config.models
        self._watcher = Watcher(
            config.models_dir,
            self._context.store,
            models.watch_interval_s,
            metrics,
            timeout_s=models.load_timeout_s,
        )
        collect_from(metrics.registry, lambda: producer_metrics(producer, log))
        collect_from(metrics.registry, lambda: key_metrics(gate, self._key_watcher))
        server = config.server
        admission = Admission(server.list_target_s, server.feedback_target_s)
        collect_from(metrics.registry, lambda: admission_metrics(admission))
        self._listener = Listener(build_app(self._context), server.host, server.port, server, admission)
        self._admin = Listener(
            build_admin_app(metrics.registry, self._not_ready_reason), "127.0.0.1", server.admin_port, server
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        self._key_watcher.start()
        # Building it imports modules from their files, which the loop must not do once it serves.
        document()
        self._background(self._watcher.run(), "model watcher")
        # The model first, if the store gives it at once: what listens is what is ready. A replica whose store is slow,
        # hangs or is empty listens too. It takes feedback, and the balancer gives its lists to another one.
        await self._watcher.wait_for_first_check(_FIRST_CHECK_S)
        # The start's objects live as long as the process; keep the collector from walking them again and again.
        gc.collect()
        gc.freeze()
        # The admin port second: whoever hears there that we are ready must find us listening.
        await self._listener.start()
        await self._admin.start()
        announce(
            f"serving at {self._listener.url}, metrics and readiness at {self._admin.url}, "
            f"model {self._context.store.version or 'none yet'}, state in {self._config.home}"
        )
        self._background(self._context.producer.run(), "telemetry shipper")
        self._background(track_degradation(self._context, self._watcher), "degradation tracker")
        _log.info(
            "replica serving",
            port=self._config.server.port,
            model=self._context.store.version,
            producer=self._context.producer.producer_id,
            epoch=self._context.producer.epoch,
        )
        await self._stopping.wait()
        await self._stop()
        if self._context.state.fault is not None:
            raise RunError(f"{self._context.state.fault} died; the log has why")

    def _not_ready_reason(self) -> str | None:
        """Return `not_ready_reason` with the model store's problem, which is for operators alone."""
        reason = not_ready_reason(self._context)
        if reason is not None and self._context.store.version is None and self._watcher.problem:
            return f"No model is loaded. {self._watcher.problem}"
        return reason

    def _background(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and not self._context.state.draining:
            # A replica that lost a part of itself leaves the set, visibly, and is started anew rather than limps on.
            self._context.state.fault = task.get_name()
            _log.error("background task died", task=task.get_name(), exc_info=task.exception())
            self._stopping.set()

    async def _stop(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._config.server.drain_timeout_s
        # 1. Readiness is refused and answers close their connections.
        self._context.state.draining = True
        _log.info("draining", connections=self._listener.open_connections)
        # 2. No new connections; what is open is served until the balancer lets go of it.
        await self._listener.drain(deadline - loop.time())
        await self._listener.close()
        # 3. Nothing offers events any more: ship what is left, unless the stream is away. It is all on the disk.
        left = await self._context.producer.drain(min(_SHIP_S, max(0.5, deadline - loop.time())))
        if left:
            # They are in the slot's log: the consumer job ships them, or the next start does.
            _log.warning("events not shipped: the stream was away", events=left)
        # 4. The tasks that only mattered while requests came.
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._key_watcher.stop()
        # 5. The admin port last, so that the drain could be watched.
        await self._admin.close()
        _log.info("replica stopped", unshipped=left)
