"""One replica from start to stop: build the context, start the background tasks, drain in order."""

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
from service.candidates.candidate_client import CandidateClient
from service.config import Config
from service.errors import RunError, UsageError
from service.event_loop import run
from service.live.feed_follower import FeedFollower
from service.logs import ApplicationLog
from service.metrics import (
    Metrics,
    admission_metrics,
    candidate_metrics,
    collect_from,
    key_metrics,
    live_metrics,
)
from service.models.snapshot import ModelSnapshot
from service.preflight import installed_archive, require_namespace, require_redis
from service.redis_access import load_seal, redis_feed, redis_stream
from service.security.exposure import insecure_warning, is_loopback, require_keys
from service.security.gate import Gate
from service.security.key_file import KeyFile
from service.security.key_watch import KeyWatcher
from service.serving.admin import build_admin_app
from service.serving.app import build_app
from service.serving.http.admission import Admission
from service.serving.http.listener import Listener, announce
from service.serving.model.store import ModelStore
from service.serving.model.watcher import Watcher
from service.serving.replica.context import ReplicaContext, not_ready_reason
from service.serving.replica.degradation import track_degradation
from service.telemetry_metrics import log_note, producer_metrics
from telemetry.errors import TelemetryError
from telemetry.failpoints import Failpoints
from telemetry.live.live_feed_reader import LiveFeedReader
from telemetry.producer import Producer
from telemetry.pseudonym import Pseudonymiser
from telemetry.stream.redis_check import RedisRole

_log = structlog.get_logger("recollect.replica")
# A stopping replica ships for this long; the consumer job or the next start ships the rest.
_SHIP_S = 2.0
# A starting replica waits this long for its first model before it listens without one.
_FIRST_CHECK_S = 2.0
# A swap waits this long for the candidates service, which loads the same version at its own pace.
_OTHER_ROLE_S = 10.0
# And so long for the feed of live events.
_FIRST_FEED_S = 1.0


def serve(config: Config, slot: int | None, *, insecure: bool = False, supervised: bool = False) -> None:
    """Run one replica until SIGTERM or SIGINT.

    A slot of None is the lowest free one. An `insecure` replica listens beyond loopback without API keys. A
    `supervised` one starts whatever the state of Redis, which its supervisor has checked.

    Raises:
        UsageError: The pseudonyms' key file cannot be used, API keys are required and there are none, or a replica of
            the role `ranking` is not told where the candidates service is.
        KeysRefused: The key file cannot be used.
        RunError: Redis cannot carry telemetry, an address cannot be listened on, or a background task died.
        TelemetryError: The slot is taken or cannot be used, or the Redis URL is malformed or another archive's.
    """
    # One core per replica: BLAS threads would compete with the other replicas.
    threadpool_limits(1)
    _keep_freed_memory()
    if config.role == "ranking" and not config.candidates.addresses:
        raise UsageError(
            "The role ranking needs the addresses of the candidates service: --candidates or RECOLLECT_CANDIDATES_URLS."
        )
    pseudonyms = config.pseudonymiser()
    server = config.server
    keyring = require_keys(config, server.host, server.port, insecure=insecure)
    if keyring is None and not is_loopback(server.host):
        sys.stderr.write(f"recollect: {insecure_warning(server.host, server.port)}\n")
    stream = redis_stream(config, load_seal(config))
    failpoints = Failpoints.parse(config.failpoint)
    found = None if supervised else require_redis(config, RedisRole.REPLICA)
    producer = Producer(
        config.spool_dir, slot, config.producer, stream, log_note, failpoints.hit, archive=installed_archive(config)
    )
    if found is not None:
        try:
            require_namespace(config, found, producer.archive)
        except TelemetryError:
            producer.close()
            raise
    name = "candidates" if config.role == "candidates" else "replica"
    log = ApplicationLog(config.logs, f"{name}-{producer.slot}", config.log)
    log.start()
    try:
        run(_Replica(config, producer, pseudonyms, Gate(keyring), log).run())
    finally:
        producer.close()
        log.stop()


def _keep_freed_memory() -> None:
    """Make glibc keep the arrays that scoring frees: fresh pages per batch cost more than the arithmetic on them."""
    # Other C libraries have no mallopt. The numbers are M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of malloc.h.
    with contextlib.suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-3, 64 << 20)
        mallopt(-1, 256 << 20)


class _Replica:
    def __init__(
        self, config: Config, producer: Producer, pseudonyms: Pseudonymiser, gate: Gate, log: ApplicationLog
    ) -> None:
        metrics = Metrics()
        self._config = config
        candidates = CandidateClient(config.candidates) if config.role == "ranking" else None
        self._context = ReplicaContext(
            config,
            ModelStore(keeps_previous=config.role == "candidates"),
            producer,
            metrics,
            pseudonyms=pseudonyms,
            gate=gate,
            candidates=candidates,
        )
        if candidates is not None:
            collect_from(metrics.registry, lambda: candidate_metrics(candidates))
        self._key_watcher = KeyWatcher(
            KeyFile.of(config),
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
            builder=self._context.items.builder,
            role=config.replica_role,
            before_swap=self._before_swap,
        )
        live = self._context.live.state
        self._follower = FeedFollower(
            LiveFeedReader(redis_feed(config), config.state_dir),
            live,
            may_follow=lambda: producer.owns_namespace,
            on_batch=self._context.items.follow,
            on_delay=metrics.live_delay.observe,
        )
        collect_from(metrics.registry, lambda: live_metrics(live, self._follower))
        collect_from(metrics.registry, lambda: producer_metrics(producer, log))
        collect_from(metrics.registry, lambda: key_metrics(gate, self._key_watcher))
        server = config.server
        admission = Admission(server.list_target_s, server.feedback_target_s)
        collect_from(metrics.registry, lambda: admission_metrics(admission))
        self._listener = Listener(build_app(self._context), server.host, server.port, server, admission)
        self._admin = Listener(
            build_admin_app(metrics.registry, self._not_ready_reason), server.admin_host, server.admin_port, server
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        self._key_watcher.start()
        # Built here, because it imports modules, which would block the loop while it serves.
        document()
        self._start_background(self._watcher.run(), "model watcher")
        self._start_background(self._follower.run(), "live feed follower")
        # The model first, so that a listening replica is usually ready. Without a model it still listens, because it
        # can accept feedback; the balancer asks another replica for lists.
        await self._watcher.wait_for_first_check(_FIRST_CHECK_S)
        self._start_background(self._context.producer.run(), "telemetry shipper")
        # A list must not be older than those of the process before this one. The shipper asks whose the namespace is.
        await self._follower.wait_until_caught_up(_FIRST_FEED_S)
        # Objects of the start live as long as the process: freezing saves the collector from traversing them.
        gc.collect()
        gc.freeze()
        # The admin port second, because its readiness implies that the replica listens.
        await self._listener.start()
        await self._admin.start()
        announce(
            f"Serving at {self._listener.url}, metrics and readiness at {self._admin.url}, "
            f"model {self._context.store.version or 'none yet'}, state in {self._config.home}."
        )
        self._start_background(self._context.items.run(), "catalogue builder")
        self._start_background(track_degradation(self._context, self._watcher, self._follower), "degradation tracker")
        _log.info(
            "replica serving",
            port=self._config.server.port,
            model=self._context.store.version,
            producer=self._context.producer.producer_id,
            epoch=self._context.producer.epoch,
        )
        await self._stopping.wait()
        await self._stop()
        if self._context.state.dead_task is not None:
            raise RunError(
                f"The background task {self._context.state.dead_task} died; the application log has the cause."
            )

    async def _before_swap(self, model: ModelSnapshot) -> None:
        """Wait until the candidates service has the embedding space of a model that was activated for both roles."""
        candidates, served = self._context.candidates, self._context.store.version
        if candidates is None or served is None or model.embedding_space is None:
            return
        if model.embedding_space == self._context.store.current().embedding_space:
            return
        if not await candidates.wait_for_space(model.embedding_space, _OTHER_ROLE_S):
            _log.warning(
                "the candidates service serves another embedding space",
                model=model.version,
                embedding_space=model.embedding_space,
            )

    def _not_ready_reason(self) -> str | None:
        """Return `not_ready_reason` with the model store's problem, which is for operators alone."""
        reason = not_ready_reason(self._context)
        if reason is not None and self._context.store.version is None and self._watcher.problem:
            return f"No model is loaded. {self._watcher.problem}"
        return reason

    def _start_background(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and not self._context.state.draining:
            # A replica without one of its tasks is not ready and stops, to be restarted.
            self._context.state.dead_task = task.get_name()
            _log.error("background task died", task=task.get_name(), exc_info=task.exception())
            self._stopping.set()

    async def _stop(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._config.server.drain_timeout_s
        # 1. Readiness is refused, and answers close their connections.
        self._context.state.draining = True
        _log.info("draining", connections=self._listener.open_connections)
        # 2. No new connections; open ones are served until the balancer closes them.
        await self._listener.drain(deadline - loop.time())
        await self._listener.close()
        # 3. No more events arrive, and all are on the disk. Ship the rest, unless Redis is unreachable.
        left = await self._context.producer.drain(min(_SHIP_S, max(0.5, deadline - loop.time())))
        if left:
            # The consumer job or the next start ships them from the write-ahead log.
            _log.warning("events not shipped: Redis was unreachable", events=left)
        # 4. The tasks that serve requests only.
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._key_watcher.stop()
        if self._context.candidates is not None:
            self._context.candidates.close()
        # 5. The admin port last, so that the drain can be observed.
        await self._admin.close()
        _log.info("replica stopped", unshipped=left)
