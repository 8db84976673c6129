"""`recollect balance`: nginx and its replicas alone; `restart`: replicas anew, one by one; `reload`: certificates."""

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from loadbalancer import home, installation, roster
from loadbalancer.errors import NotRunning, ReloadFailed, RestartFailed
from loadbalancer.fleet import RELOAD_SIGNAL, RESTART_SIGNAL
from loadbalancer.nginx import configuration_files
from loadbalancer.processes import group_members
from loadbalancer.roster import Row
from ops.commands.up import (
    alone,
    balancer_settings,
    children_environ,
    guarded,
    look_at_redis,
    say,
    say_if_root,
    spares,
    supervise,
)
from ops.program import PROGRAM
from service.config import Config
from service.errors import ModelError
from service.models import active_model
from service.preflight import require_slots

_LOOK_EVERY_S = 0.05
_RELOAD_TIMEOUT_S = 10.0
# One replica drains for 9 s at most and gets ready within 60 s, or is started again.
_RESTART_TIMEOUT_PER_REPLICA_S = 90.0


def balance(
    config: Config,
    *,
    replicas: int | None = None,
    port: int | None = None,
    insecure: bool = False,
    environ: Mapping[str, str] = os.environ,
    program: Sequence[str] = PROGRAM,
) -> int:
    """Run nginx and its replicas until SIGINT, SIGTERM or SIGHUP; Redis and the consumer run elsewhere.

    Args:
        config: Every setting of the service.
        replicas: How many; None for the setting.
        port: Nginx's; None for the setting.
        insecure: Listen beyond this machine without API keys.
        environ: What the children inherit, and where the balancer's settings are.
        program: How Python parts are started.

    Returns:
        The exit code.

    Raises:
        BalancerError: A part, a port or a program is missing; nothing is left behind.
    """
    settings = balancer_settings(environ, replicas=replicas, port=port)
    # Refused here in a sentence, and not by every replica at every start.
    config.pseudonymiser()
    guard = guarded(config, settings, insecure=insecure)
    nginx, _ = installation.binaries(settings, redis=False)
    say(f"state in {config.home}, logs in {config.logs}")
    with alone(config, settings):
        require_slots(config, look_at_redis(config, consumer=False), settings.replicas)
        plan = installation.Plan(
            settings=settings,
            home=config.home,
            logs=config.logs,
            models=config.models_dir,
            program=program,
            environ={**children_environ(config, environ), **guard},
            nginx=nginx,
            redis=None,
            consumer=False,
            drain_s=config.server.drain_timeout_s,
        )
        say_if_root()
        say(f"starting {settings.replicas} replicas and {settings.balancers} nginx")
        url = installation.base_url(settings)
        parts = installation.lay_out(plan)
        supervise(config.home, parts, came_up=lambda: say(f"balancing at {url}"), spares=spares(settings, program))
    say("stopped")
    return 0


def restart(config: Config, *, as_json: bool = False, timeout_s: float | None = None) -> int:
    """Restart every replica of the running installation, one at a time, and wait until all are ready again.

    Args:
        config: Every setting of the service.
        as_json: Print one JSON object instead of lines.
        timeout_s: How long to wait; None for 90 s a replica.

    Returns:
        The exit code.

    Raises:
        NotRunning: Nothing runs, or it has no replicas.
        ModelError: What is active cannot be loaded, so that a restarted replica would have no model; none was stopped.
        RestartFailed: Not every replica was ready again in time, or one says that it cannot be.
    """
    pid = home.holder_pid(config.home)
    before = _replicas(config.home)
    if not before:
        raise NotRunning(f"No replicas run in {config.home} (yet)")
    _require_model(config)
    began_s = time.monotonic()
    limit_s = _RESTART_TIMEOUT_PER_REPLICA_S * len(before) if timeout_s is None else timeout_s
    os.kill(pid, RESTART_SIGNAL)
    restarted: list[dict[str, object]] = []
    done: set[str] = set()
    while len(done) < len(before):
        if time.monotonic() - began_s > limit_s:
            left = ", ".join(sorted(set(before) - done))
            raise RestartFailed(f"After {limit_s:g} s these replicas were not ready again: {left}")
        if home.holder_pid(config.home) != pid:
            raise RestartFailed("The installation was stopped during the restart")
        for name, row in _replicas(config.home).items():
            was = before.get(name)
            if row.waits_for:
                raise RestartFailed(
                    f"{name} is not ready, so no other one is stopped: {row.waits_for}. The restart goes on by itself"
                    " once that is mended"
                )
            if name in done or was is None or row.pid is None or row.pid == was.pid or row.state != "ready":
                continue
            done.add(name)
            after_s = round(time.monotonic() - began_s, 3)
            restarted.append({"name": name, "old_pid": was.pid, "new_pid": row.pid, "after_s": after_s})
            if not as_json:
                say(f"{name} is ready again as process {row.pid} ({len(done)} of {len(before)}, {after_s:.1f} s)")
        time.sleep(_LOOK_EVERY_S)
    if as_json:
        wall_s = round(time.monotonic() - began_s, 3)
        sys.stdout.write(json.dumps({"restarted": restarted, "wall_s": wall_s}) + "\n")
    return 0


def _require_model(config: Config) -> None:
    """Refuse to stop replicas that serve from memory what they could not load again.

    Raises:
        ModelError: Nothing is active, or it cannot be loaded, or the model store does not answer.
    """
    try:
        active_model.load(config.models_dir, config.models.load_timeout_s)
    except ModelError as error:
        raise type(error)(
            f"No replica was restarted, for it would be left without a model: {error} Activate another version"
            " (recollect models list shows them), or train one"
        ) from error


def reload(config: Config, *, environ: Mapping[str, str] = os.environ) -> int:
    """Have every nginx of the running installation read its certificate again, and wait until new workers serve.

    Workers that were there before serve what they have open, and take nothing new.

    Args:
        config: Every setting of the service.
        environ: Where the balancer's settings are.

    Returns:
        The exit code.

    Raises:
        NotRunning: Nothing runs, or it has no nginx.
        ConfigurationRefused: Nginx does not take the certificate; what was served before still is.
        ReloadFailed: Not every nginx had a new worker in time.
    """
    pid = home.holder_pid(config.home)
    rows = {row.name: row for row in roster.read(config.home) if row.name.startswith("nginx-") and row.pid is not None}
    if not rows:
        raise NotRunning(f"No nginx runs in {config.home} (yet)")
    nginx, _ = installation.binaries(balancer_settings(environ, replicas=None, port=None), redis=False)
    for name in rows:
        run_dir = config.home / "run" / name
        configuration_files.check(
            configuration_files.command(nginx.path, run_dir, config.logs / f"{name}.error.log"), run_dir
        )
    before = {name: _processes(row) for name, row in rows.items()}
    os.kill(pid, RELOAD_SIGNAL)
    deadline_s = time.monotonic() + _RELOAD_TIMEOUT_S
    waiting = dict(rows)
    while waiting:
        if time.monotonic() > deadline_s:
            raise ReloadFailed(
                f"After {_RELOAD_TIMEOUT_S:g} s these have no new worker: {', '.join(waiting)}; their error logs are in"
                f" {config.logs}"
            )
        for name in [name for name, row in waiting.items() if _processes(row) - before[name]]:
            del waiting[name]
            say(f"{name} has read its files again")
        time.sleep(_LOOK_EVERY_S)
    return 0


def _processes(row: Row) -> set[int]:
    return set() if row.pid is None else set(group_members(row.pid, row.output))


def _replicas(home_dir: Path) -> dict[str, Row]:
    return {row.name: row for row in roster.read(home_dir) if row.name.startswith("replica-")}
