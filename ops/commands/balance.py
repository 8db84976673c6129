"""`recollect balance`: nginx and its replicas; `restart`: a rolling restart; `reload`: new certificates."""

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import typer

from loadbalancer import home, installation, roster
from loadbalancer.errors import NotRunning, ReloadFailed, RestartFailed
from loadbalancer.nginx import configuration_files
from loadbalancer.roster import Row
from loadbalancer.supervision.fleet import RELOAD_SIGNAL, RESTART_SIGNAL
from loadbalancer.supervision.processes import group_members
from ops.installation_run import (
    balancer_settings,
    check_redis,
    children_environ,
    held_home,
    key_environ,
    print_line,
    run_installation,
)
from ops.options.shared_options import CandidatesOption, InsecureOption, JsonOption, PortOption, ReplicasOption
from ops.program import PROGRAM
from service.config import Config, from_env
from service.errors import ModelError
from service.models.files import active_model
from service.models.roles import Role
from service.preflight import require_namespace_of_slots

app = typer.Typer(help="nginx and its replicas.", invoke_without_command=True, rich_markup_mode=None)

_POLL_EVERY_S = 0.05
_RELOAD_TIMEOUT_S = 10.0
# A replica drains for 9 s at most, and is ready within 60 s or is started again.
_RESTART_TIMEOUT_PER_REPLICA_S = 90.0


@app.callback()
def command(
    context: typer.Context,
    *,
    replicas: ReplicasOption = None,
    candidates: CandidatesOption = None,
    port: PortOption = None,
    insecure: InsecureOption = False,
) -> int:
    """Run nginx and its replicas; Redis and the consumer run elsewhere.

    With --replicas 0 it is nginx alone, before the replicas of other machines in RECOLLECT_REMOTE_REPLICAS.
    """
    if context.invoked_subcommand is not None:
        return 0
    return balance(from_env(os.environ), replicas=replicas, candidates=candidates, port=port, insecure=insecure)


@app.command("restart")
def restart_command(*, as_json: JsonOption = False) -> int:
    """Restart every replica of the running installation, one at a time, without a failed request."""
    return restart(from_env(os.environ), as_json=as_json)


@app.command("reload")
def reload_command() -> int:
    """Have nginx load a new certificate, without a failed request."""
    return reload(from_env(os.environ))


def balance(
    config: Config,
    *,
    replicas: int | None = None,
    candidates: int | None = None,
    port: int | None = None,
    insecure: bool = False,
    environ: Mapping[str, str] = os.environ,
    program: Sequence[str] = PROGRAM,
) -> int:
    """Run nginx and its replicas until SIGINT, SIGTERM or SIGHUP; Redis and the consumer run elsewhere.

    Without replicas of its own it needs no Redis, no keys and no model.

    `environ` holds the balancer's settings and is inherited by the children.

    Raises:
        BalancerError: A part, a port or a program is missing; nothing is left behind.
    """
    settings = balancer_settings(environ, replicas=replicas, candidates=candidates, port=port)
    # Fails here with one sentence instead of in every replica at every start.
    if settings.replicas:
        config.pseudonymiser()
    keys = key_environ(config, settings, insecure=insecure)
    nginx, _ = installation.find_binaries(settings, redis=False)
    print_line(f"State in {config.home}, logs in {config.logs}.")
    with held_home(config, settings):
        if settings.replicas:
            require_namespace_of_slots(config, check_redis(config, consumer=False), settings.slots)
        run_installation(
            config,
            settings,
            {**children_environ(config, environ), **keys},
            program=program,
            nginx=nginx,
            redis=None,
            consumer=False,
            on_ready=lambda: print_line(f"Recollect is balancing at {installation.base_url(settings)}"),
            insecure=insecure,
        )
    print_line("Stopped.")
    return 0


def restart(config: Config, *, as_json: bool = False, timeout_s: float | None = None) -> int:
    """Restart every replica of the running installation, one at a time, and wait until all are ready again.

    The default timeout is 90 s per replica.

    Raises:
        NotRunning: Nothing runs, or it has no replicas.
        ModelError: The active model cannot be loaded, so a restarted replica would have none; none was stopped.
        RestartFailed: Not every replica was ready again in time, or one reports that it cannot be.
    """
    pid = home.holder_pid(config.home)
    before = _replicas(config.home)
    if not before:
        raise NotRunning(f"No replicas run in {config.home} yet.")
    _require_model(config)
    began_s = time.monotonic()
    limit_s = _RESTART_TIMEOUT_PER_REPLICA_S * len(before) if timeout_s is None else timeout_s
    os.kill(pid, RESTART_SIGNAL)
    restarted: dict[str, dict[str, object]] = {}
    while len(restarted) < len(before):
        if time.monotonic() - began_s > limit_s:
            missing = ", ".join(sorted(before.keys() - restarted.keys()))
            raise RestartFailed(f"After {limit_s:g} s these replicas were not ready again: {missing}.")
        if home.holder_pid(config.home) != pid:
            raise RestartFailed("The installation was stopped during the restart.")
        for name, row in _replicas(config.home).items():
            if row.waits_for:
                raise RestartFailed(
                    f"{name} is not ready, so no other replica is stopped: {row.waits_for}. The restart continues by"
                    " itself when that is fixed."
                )
            old = before.get(name)
            if name in restarted or old is None or row.pid in {None, old.pid} or row.state != "ready":
                continue
            after_s = round(time.monotonic() - began_s, 3)
            restarted[name] = {"name": name, "old_pid": old.pid, "new_pid": row.pid, "after_s": after_s}
            if not as_json:
                count = f"{len(restarted)} of {len(before)}"
                print_line(f"{name} is ready again as process {row.pid} ({count}, {after_s:.1f} s).")
        time.sleep(_POLL_EVERY_S)
    if as_json:
        wall_s = round(time.monotonic() - began_s, 3)
        sys.stdout.write(json.dumps({"restarted": list(restarted.values()), "wall_s": wall_s}) + "\n")
    return 0


def _require_model(config: Config) -> None:
    """Refuse to stop replicas whose model could not be loaded again.

    Raises:
        ModelError: No model is active, or it cannot be loaded, or the model store does not answer.
    """
    roles: list[Role] = ["all", *active_model.own_roles(config.models_dir)]
    try:
        for role in roles:
            active_model.load(config.models_dir, config.models.load_timeout_s, role)
    except ModelError as error:
        raise type(error)(
            f"No replica was restarted, because it would have no model: {str(error).rstrip('.')}. Activate another"
            " version (`recollect models list` shows them), or train one."
        ) from error


def reload(config: Config, *, environ: Mapping[str, str] = os.environ) -> int:
    """Have every nginx of the running installation read its certificate again, and wait for its new workers.

    Old workers finish their open connections and accept no new ones.

    Raises:
        NotRunning: Nothing runs, or it has no nginx.
        ConfigurationRefused: Nginx rejects the certificate and keeps the old one.
        ReloadFailed: Not every nginx had a new worker in time.
    """
    pid = home.holder_pid(config.home)
    rows = {row.name: row for row in roster.read(config.home) if row.name.startswith("nginx-") and row.pid is not None}
    if not rows:
        raise NotRunning(f"No nginx runs in {config.home} yet.")
    nginx, _ = installation.find_binaries(balancer_settings(environ, replicas=None, port=None), redis=False)
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
                f" {config.logs}."
            )
        for name in [name for name, row in waiting.items() if _processes(row) - before[name]]:
            del waiting[name]
            print_line(f"{name} has loaded its files again.")
        time.sleep(_POLL_EVERY_S)
    return 0


def _processes(row: Row) -> set[int]:
    return set() if row.pid is None else set(group_members(row.pid, row.output))


def _replicas(home_dir: Path) -> dict[str, Row]:
    return {row.name: row for row in roster.read(home_dir) if roster.is_replica(row)}
