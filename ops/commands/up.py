"""`recollect up`: everything on this machine, started in order, watched, and stopped in order.

Invariant: however it ends, short of SIGKILL, no process, port, socket, pid file or temporary file of it is left; the
state and the logs stay. What SIGKILL leaves, the next `up` ends before it starts anything.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from urllib.parse import quote

from loadbalancer import home, installation, ports, unix_sockets
from loadbalancer.fleet import RELOAD_SIGNAL, RESTART_SIGNAL, STOP_SIGNALS, Fleet
from loadbalancer.part_kinds import Part
from loadbalancer.processes import spawn_attached
from loadbalancer.settings import BalancerSettings
from ops.checks import open_files
from ops.console.refusal import HELD_BACK
from ops.program import PROGRAM, SPARE
from service.config import Config
from service.training.data.data_request import DataRequest
from telemetry.stream.redis_check import RedisReport

_TRAINING_STOP_S = 10.0
# Replicas of a killed run may be writing down what they hold; they take 8 s at most.
_LEFTOVER_GRACE_S = 10.0
_ANYBODY = "anybody"


def up(
    config: Config,
    *,
    data: DataRequest | None = None,
    replicas: int | None = None,
    port: int | None = None,
    insecure: bool = False,
    claim: bool = False,
    environ: Mapping[str, str] = os.environ,
    program: Sequence[str] = PROGRAM,
) -> int:
    """Start everything, and run until SIGINT, SIGTERM or SIGHUP; SIGUSR1 restarts the replicas, SIGUSR2 reloads nginx.

    Args:
        config: Every setting of the service.
        data: Train on this unless the active model already is.
        replicas: How many; None for the setting.
        port: Nginx's; None for the setting.
        insecure: Listen beyond this machine without API keys.
        claim: Take the place in Redis over if it belongs to another archive.
        environ: What the children inherit, and where the balancer's settings are.
        program: How Python parts are started.

    Returns:
        The exit code.

    Raises:
        BalancerError: A part, a port or a program is missing; nothing is left behind.
        RecollectError: A setting is wrong, or the active model cannot be read.
    """
    from service.errors import UsageError

    if data is not None and data.is_read_once:
        raise UsageError(
            "up compares its data with the active model's at every start: give a file, not standard input or a pipe"
        )
    settings = balancer_settings(environ, replicas=replicas, port=port)
    # Refused here in a sentence, and not by every replica at every start.
    config.pseudonymiser()
    guard = guarded(config, settings, insecure=insecure)
    nginx, redis = installation.binaries(settings, redis=config.redis_url is None)
    say(f"state in {config.home}, logs in {config.logs}")
    with alone(config, settings):
        if redis is None:
            look_at_redis(config, consumer=True, claim=claim)
        children = {**children_environ(config, environ), **guard}
        status = _provide_model(config, data, program, children)
        if status != 0:
            return status
        plan = installation.Plan(
            settings=settings,
            home=config.home,
            logs=config.logs,
            models=config.models_dir,
            program=program,
            environ=children,
            nginx=nginx,
            redis=redis,
            consumer=True,
            drain_s=config.server.drain_timeout_s,
        )
        say_if_root()
        own_redis = "" if redis is None else "Redis, "
        say(f"starting {own_redis}the consumer, {settings.replicas} replicas and {settings.balancers} nginx")
        parts = installation.lay_out(plan)
        if redis is not None and (where := unix_sockets.outside(config.home)) is not None:
            say(f"no socket can lie in {config.home / 'run'}: Redis listens in {where}, until it stops")
        supervise(
            config.home,
            parts,
            came_up=lambda: _greet(config, settings, keyed=bool(guard)),
            spares=spares(settings, program),
        )
    say("stopped")
    return 0


def balancer_settings(environ: Mapping[str, str], *, replicas: int | None, port: int | None) -> BalancerSettings:
    """Read the balancer's settings; what the command line gives comes first.

    Raises:
        UsageError: A value is of the wrong kind or out of bounds.
    """
    from service.declared_settings import read

    options = {"RECOLLECT_REPLICAS": replicas, "RECOLLECT_PORT": port}
    given = {name: str(value) for name, value in options.items() if value is not None}
    return read(BalancerSettings, {**environ, **given})


def children_environ(config: Config, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of every part: ours, with the folders made explicit and absolute."""
    explicit = {"RECOLLECT_HOME": str(config.home), "RECOLLECT_LOGS": str(config.logs)}
    if config.redis_url is not None:
        explicit["RECOLLECT_REDIS_URL"] = config.redis_url
    return {**environ, **explicit}


def look_at_redis(config: Config, *, consumer: bool, claim: bool = False) -> RedisReport:
    """Refuse a Redis that cannot carry telemetry, and say what is wrong with one that can.

    Args:
        config: Every setting.
        consumer: Whether a consumer is to be started, besides replicas.
        claim: Take the place over if it belongs to another archive.

    Returns:
        What was found.

    Raises:
        RecollectError: It is refused.
        TelemetryError: It belongs to another archive, or its address is none.
    """
    from service.preflight import require_redis
    from telemetry.stream.redis_check import RedisRole

    found = require_redis(config, *(RedisRole if consumer else (RedisRole.REPLICA,)), claim=claim)
    for trouble in found.warnings:
        say(f"the Redis at {found.where}: {trouble}")
    return found


def guarded(config: Config, settings: BalancerSettings, *, insecure: bool) -> dict[str, str]:
    """Refuse to listen beyond this machine without API keys, and say so where that is asked for all the same.

    Returns:
        What replicas are told: where there are keys, none of them starts without any. Lost keys open nothing.

    Raises:
        UsageError: There must be keys, and there are none.
        KeysRefused: The key file cannot be used.
    """
    from service.security import exposure

    ring = exposure.require_keys(config, settings.host, settings.port, insecure=insecure)
    if ring is None:
        if not settings.loopback_only:
            say(exposure.warning(settings.host, settings.port))
        return {}
    return {"RECOLLECT_KEYS_REQUIRED": "true"}


def say_if_root() -> None:
    """Tell an operator who started us as root what that means for the process that strangers talk to."""
    if os.geteuid() == 0:
        say("running as root, and so do nginx's workers: give Recollect a user of its own before strangers reach it")


def spares(settings: BalancerSettings, program: Sequence[str]) -> int:
    """Return how many spares are to wait: none for another program than ours, which they could not become."""
    return settings.spares if tuple(program) == PROGRAM else 0


def supervise(home_dir: Path, parts: Sequence[Part], *, came_up: Callable[[], None], spares: int) -> None:
    """Run parts until a signal asks to stop.

    Args:
        home_dir: The home directory, held by the caller.
        parts: What to run.
        came_up: Called when all parts are ready.
        spares: How many loaded processes wait to take a dead part's place.

    Raises:
        PartFailed: A part did not come up.
    """
    try:
        asyncio.run(_supervise(Fleet(home_dir, parts, came_up=came_up, tell=say, spare=SPARE, spares=spares)))
    finally:
        # All has stopped; what is left to do is short and must not be cut off.
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)


async def _supervise(fleet: Fleet) -> None:
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        if not _under_nohup(number):
            loop.add_signal_handler(number, fleet.ask_to_stop)
    loop.add_signal_handler(RESTART_SIGNAL, fleet.ask_to_restart)
    loop.add_signal_handler(RELOAD_SIGNAL, fleet.reload)
    await fleet.run()


@contextlib.contextmanager
def alone(config: Config, settings: BalancerSettings) -> Iterator[None]:
    """Hold the home directory, end what a killed run left in it, and make sure that nginx's port is free.

    Raises:
        BalancerError: Another process runs here, something of an earlier one cannot be ended, or the port is taken.
    """
    with interruptible(), home.held(config.home):
        home.end_leftovers(config.home, say, grace_s=_LEFTOVER_GRACE_S)
        ports.require(settings.host, settings.port)
        if (few := open_files.widen()) is not None:
            say(few)
        yield


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Make every signal that asks to stop raise KeyboardInterrupt, so that what was begun is undone."""
    before = {number: signal.getsignal(number) for number in (*STOP_SIGNALS, RESTART_SIGNAL, RELOAD_SIGNAL)}
    for number in before:
        if not _under_nohup(number):
            signal.signal(number, _ignore if number in {RESTART_SIGNAL, RELOAD_SIGNAL} else _interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _under_nohup(number: signal.Signals) -> bool:
    """Whether a signal is one that we were told to ignore: SIGHUP, so that a terminal that closes does not stop us.

    A shell script has its background commands ignore SIGINT too, but who sends us one means it.
    """
    return number is signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN


def say(sentence: str) -> None:
    """Tell the operator one thing, at once."""
    # A reader of our output that went away is no reason to stop serving.
    with contextlib.suppress(OSError):
        sys.stdout.write(f"{sentence}\n")
        sys.stdout.flush()


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """There is nothing to restart or reload yet; without a handler the signal would kill us."""


def _provide_model(config: Config, data: DataRequest | None, program: Sequence[str], environ: Mapping[str, str]) -> int:
    """Train if there is no model of this data; return the status of the training, 0 without one."""
    from service.training.pipeline import needs_training

    wanted = needs_training(config, data)
    if wanted is None:
        return 0
    say(f"training a model on {wanted}")
    # It shares our terminal, for its progress bar and for Ctrl-C.
    child = spawn_attached([*program, "train", *wanted.argv()], environ)
    try:
        status = child.wait()
    except KeyboardInterrupt:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_TRAINING_STOP_S)
        child.kill()
        child.wait()
        raise
    if status == HELD_BACK:
        # The training has said why; the model before it is there to be served.
        return 0
    return status if status >= 0 else 1


def _greet(config: Config, settings: BalancerSettings, *, keyed: bool) -> None:
    url = installation.base_url(settings)
    user = quote(_example_user(config.models_dir) or _ANYBODY, safe="")
    key = '-H "Authorization: Bearer $KEY" ' if keyed else ""
    say(f"Recollect is ready at {url}\n  try:   curl {key}{url}/recommend/{user}\n  stop:  Ctrl-C")


def _example_user(models_dir: Path) -> str | None:
    """Return the first user id of the active model, or None."""
    from service.errors import ModelError
    from service.models import active_model, artefact

    with contextlib.suppress(ModelError):
        version = active_model.version(models_dir)
        if version is not None:
            return artefact.first_user_id(models_dir / version)
    return None
