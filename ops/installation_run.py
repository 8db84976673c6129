"""Runs an installation for `up` and `balance`: settings and checks before the start, signals, and the parts.

Invariant: however a run ends, except by SIGKILL, no process, port, socket, pid file or temporary file of it is left;
state and logs stay. After a SIGKILL, the next run ends the leftover processes before it starts any.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType

from loadbalancer import home, installation, ports, unix_sockets
from loadbalancer.binaries import Binary
from loadbalancer.installation_spec import InstallationSpec
from loadbalancer.settings import BalancerSettings
from loadbalancer.supervision.fleet import RELOAD_SIGNAL, RESTART_SIGNAL, STOP_SIGNALS, Fleet
from loadbalancer.supervision.spare_pool import SparePool
from ops import key_checks
from ops.checks import open_files
from ops.program import PROGRAM, SPARE
from service.config import Config
from service.declared_settings import read
from service.preflight import require_redis
from service.security import exposure
from telemetry.stream.redis_check import RedisReport, RedisRole

# Replicas of a killed run may be shipping their events, for 8 s at most.
_LEFTOVER_GRACE_S = 10.0


def balancer_settings(
    environ: Mapping[str, str], *, replicas: int | None, port: int | None, candidates: int | None = None
) -> BalancerSettings:
    """Read the balancer's settings; options of the command line override them.

    Raises:
        UsageError: A value is of the wrong type or out of bounds.
    """
    options = {"RECOLLECT_REPLICAS": replicas, "RECOLLECT_CANDIDATES": candidates, "RECOLLECT_PORT": port}
    given = {name: str(value) for name, value in options.items() if value is not None}
    return read(BalancerSettings, {**environ, **given})


def children_environ(config: Config, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of every part: the given one, with the folders explicit and absolute."""
    # What parts print goes to files that nothing rotates, so their logs must not.
    explicit = {
        "RECOLLECT_HOME": str(config.home),
        "RECOLLECT_LOGS": str(config.logs),
        "RECOLLECT_LOG_OUTPUT": "files",
    }
    if config.redis_url is not None:
        explicit["RECOLLECT_REDIS_URL"] = config.redis_url
    return {**environ, **explicit}


def check_redis(config: Config, *, consumer: bool, claim: bool = False) -> RedisReport:
    """Refuse a Redis that cannot carry telemetry of replicas and, where one starts, the consumer; print its warnings.

    Raises:
        RecollectError: Redis is refused.
        TelemetryError: Its namespace belongs to another archive, or its address is malformed.
    """
    found = require_redis(config, *(RedisRole if consumer else (RedisRole.REPLICA,)), claim=claim)
    for warning in found.warnings:
        print_line(f"The Redis at {found.where}: {warning}")
    return found


def key_environ(config: Config, settings: BalancerSettings, *, insecure: bool) -> dict[str, str]:
    """Refuse to listen beyond this machine without API keys; with `insecure`, print a warning instead.

    Replicas of other machines judge keys themselves, so nginx alone before them needs none.

    Returns:
        Environment of the replicas. If there are keys, it makes each replica require them, so that a lost key file
        does not open the installation.

    Raises:
        UsageError: Keys are required, and there are none.
        KeysRefused: The key file cannot be used.
    """
    if key_checks.are_elsewhere(settings):
        return {}
    listening = key_checks.listeners(settings).values()
    for host, port in listening:
        if exposure.require_keys(config, host, port, insecure=insecure) is not None:
            return {"RECOLLECT_KEYS_REQUIRED": "true"}
    for host, port in listening:
        if not exposure.is_loopback(host):
            print_line(exposure.insecure_warning(host, port))
    return {}


@contextlib.contextmanager
def held_home(config: Config, settings: BalancerSettings) -> Iterator[None]:
    """Hold the home directory, end the processes that a killed run left, and check that nginx's port is free.

    Raises:
        BalancerError: Another process runs here, a leftover process cannot be ended, or the port is taken.
    """
    with interruptible(), home.held(config.home):
        home.end_leftovers(config.home, print_line, grace_s=_LEFTOVER_GRACE_S)
        ports.require_free(settings.host, settings.port)
        if (warning := open_files.raise_soft_limit()) is not None:
            print_line(warning)
        yield


def run_installation(
    config: Config,
    settings: BalancerSettings,
    environ: Mapping[str, str],
    *,
    program: Sequence[str],
    nginx: Binary,
    redis: Binary | None,
    consumer: bool,
    on_ready: Callable[[], None],
    insecure: bool = False,
) -> None:
    """Run an installation until a stop signal, in a held home directory; `on_ready` is called when all parts are ready.

    Spares can become parts of the default program only.

    Raises:
        BalancerError: No ports are free, nginx rejects its configuration, or a part did not come up.
    """
    if os.geteuid() == 0:
        print_line("Running as root, as do nginx's workers: use a dedicated user before clients can reach Recollect.")
    names = ["Redis"] * (redis is not None) + ["the consumer"] * consumer + [f"{settings.replicas} replicas"]
    names += [f"{settings.candidates} for candidates"] * (settings.candidates > 0)
    started = f"{', '.join(names)} and " if settings.replicas else ""
    print_line(f"Starting {started}{settings.balancers} nginx.")
    spec = InstallationSpec(
        settings=settings,
        home=config.home,
        logs=config.logs,
        models=config.models_dir,
        program=program,
        environ=environ,
        nginx=nginx,
        redis=redis,
        consumer=consumer,
        drain_s=config.server.drain_timeout_s,
        insecure=insecure,
    )
    prepared = installation.prepare(spec)
    if redis is not None and (directory := unix_sockets.directory_outside(config.home)) is not None:
        print_line(f"{config.home / 'run'} cannot hold a socket: Redis listens in {directory} until it stops.")
    spares = SparePool(SPARE, settings.spares if tuple(program) == PROGRAM else 0, print_line)
    try:
        fleet = Fleet(
            config.home, prepared.parts, on_ready=on_ready, notify=print_line, spares=spares, remote=prepared.remote
        )
        asyncio.run(_run(fleet))
    finally:
        # Everything has stopped; a signal must not interrupt the removal of run/.
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)


async def _run(fleet: Fleet) -> None:
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        if not _is_nohup(number):
            loop.add_signal_handler(number, fleet.request_stop)
    loop.add_signal_handler(RESTART_SIGNAL, fleet.request_restart)
    loop.add_signal_handler(RELOAD_SIGNAL, fleet.reload)
    await fleet.run()


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Make every stop signal raise KeyboardInterrupt, so that context managers undo an unfinished start."""
    before = {number: signal.getsignal(number) for number in (*STOP_SIGNALS, RESTART_SIGNAL, RELOAD_SIGNAL)}
    for number in before:
        if not _is_nohup(number):
            signal.signal(number, _ignore if number in {RESTART_SIGNAL, RELOAD_SIGNAL} else _interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_nohup(number: signal.Signals) -> bool:
    """Whether the parent had a SIGHUP ignored, as nohup does.

    Background commands of a shell script ignore SIGINT in the same way, but a SIGINT is meant for this process.
    """
    return number is signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN


def print_line(sentence: str) -> None:
    """Print a sentence at once. A closed standard output does not stop the installation."""
    with contextlib.suppress(OSError):
        sys.stdout.write(f"{sentence}\n")
        sys.stdout.flush()


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Ignore a restart or reload before the parts run; without a handler the signal would kill this process."""
