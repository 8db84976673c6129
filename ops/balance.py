"""`recollect balance`: nginx and its replicas alone; `recollect balance restart`: all replicas anew, one at a time."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import TYPE_CHECKING

from loadbalancer import home, installation, roster
from loadbalancer.errors import NotRunning, RestartFailed
from loadbalancer.fleet import RESTART_SIGNAL
from ops.up import PROGRAM, alone, balancer_settings, children_environ, guarded, say, say_if_root, spares, supervise
from service.errors import ModelError, ModelMissing, ModelRefused
from service.models import artefact
from telemetry.aside import aside

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from loadbalancer.roster import Row
    from service.config import Config

_LOOK_EVERY_S = 0.05
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
        config: every setting of the service.
        replicas: how many; None for the setting.
        port: nginx's; None for the setting.
        insecure: listen beyond this machine without API keys.
        environ: what the children inherit, and where the balancer's settings are.
        program: how Python parts are started.

    Returns:
        The exit code.

    Raises:
        BalancerError: a part, a port or a program is missing; nothing is left behind.
    """
    settings = balancer_settings(environ, replicas=replicas, port=port)
    # Refused here in a sentence, and not by every replica at every start.
    config.pseudonymiser()
    guard = guarded(config, settings, insecure=insecure)
    nginx, _ = installation.binaries(settings, redis=False)
    with alone(config, settings):
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
        config: every setting of the service.
        as_json: print one JSON object instead of lines.
        timeout_s: how long to wait; None for 90 s a replica.

    Returns:
        The exit code.

    Raises:
        NotRunning: nothing runs, or it has no replicas.
        ModelError: what is active cannot be loaded, so that a restarted replica would have no model; none was stopped.
        RestartFailed: not every replica was ready again in time, or one says that it cannot be.
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
        ModelError: nothing is active, or it cannot be loaded, or the model store does not answer.
    """

    def load() -> None:
        version = artefact.active_version(config.models_dir)
        if version is None:
            raise ModelMissing(f"nothing is active in {config.models_dir}")
        artefact.load(config.models_dir / version)

    try:
        asyncio.run(_within(load, config.models.load_timeout_s))
    except ModelError as error:
        raise type(error)(
            f"No replica was restarted, for it would be left without a model: {error}. Activate another version"
            " (recollect models list shows them), or train one"
        ) from error


async def _within(load: Callable[[], None], timeout_s: float) -> None:
    try:
        await asyncio.wait_for(aside(load, "model-loader"), timeout_s)
    except TimeoutError:
        raise ModelRefused(f"the active model was not read within {timeout_s:g} s") from None


def _replicas(home_dir: Path) -> dict[str, Row]:
    return {row.name: row for row in roster.read(home_dir) if row.name.startswith("replica-")}
