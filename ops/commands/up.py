"""`recollect up`: everything on this machine, started in order, supervised, and stopped in order."""

import contextlib
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from loadbalancer import installation
from loadbalancer.settings import BalancerSettings
from loadbalancer.supervision.processes import spawn_attached
from ops.console.command_runner import NOT_ACTIVATED
from ops.installation_run import (
    balancer_settings,
    check_redis,
    children_environ,
    held_home,
    key_environ,
    print_line,
    run_installation,
)
from ops.options.data_options import (
    ColumnsOption,
    DatesOption,
    DecimalOption,
    EncodingOption,
    OptionalDataOption,
    requested_data,
)
from ops.options.shared_options import ClaimOption, InsecureOption, PortOption, ReplicasOption
from ops.program import PROGRAM
from service.config import Config, from_env
from service.errors import ModelError, UsageError
from service.models import active_model, artefact
from service.training.data.data_request import DataRequest

_TRAINING_STOP_S = 10.0
_EXAMPLE_USER = "new-user"


def command(
    *,
    data: OptionalDataOption = None,
    columns: ColumnsOption = None,
    dates: DatesOption = None,
    encoding: EncodingOption = None,
    decimal: DecimalOption = None,
    replicas: ReplicasOption = None,
    port: PortOption = None,
    insecure: InsecureOption = False,
    claim: ClaimOption = False,
) -> int:
    """Start everything on this machine: Redis, a model, replicas, nginx in front, the consumer."""
    config = from_env(os.environ)
    request = requested_data(config, data, columns, dates, encoding, decimal) if data else None
    return up(config, data=request, replicas=replicas, port=port, insecure=insecure, claim=claim)


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

    Trains on `data` unless the active model was trained on it. `environ` holds the balancer's settings and is
    inherited by the children.

    Raises:
        BalancerError: A part, a port or a program is missing; nothing is left behind.
        RecollectError: A setting is wrong, or the active model cannot be read.
    """
    if data is not None and data.is_read_once:
        raise UsageError(
            "up compares its data with the active model's at every start: give a file, not standard input or a pipe."
        )
    settings = balancer_settings(environ, replicas=replicas, port=port)
    # Fails here with one sentence instead of in every replica at every start.
    config.pseudonymiser()
    keys = key_environ(config, settings, insecure=insecure)
    nginx, redis = installation.find_binaries(settings, redis=config.redis_url is None)
    print_line(f"State in {config.home}, logs in {config.logs}.")
    with held_home(config, settings):
        if redis is None:
            check_redis(config, consumer=True, claim=claim)
        children = {**children_environ(config, environ), **keys}
        status = ensure_model(config, data, program, children)
        if status != 0:
            return status
        run_installation(
            config,
            settings,
            children,
            program=program,
            nginx=nginx,
            redis=redis,
            consumer=True,
            on_ready=lambda: _print_ready(config, settings, keyed=bool(keys)),
        )
    print_line("Stopped.")
    return 0


def ensure_model(config: Config, data: DataRequest | None, program: Sequence[str], environ: Mapping[str, str]) -> int:
    """Train unless the active model was trained on this data; return the exit code of the training, else 0."""
    from service.training.training_need import needed_training

    request = needed_training(config, data)
    if request is None:
        return 0
    print_line(f"Training a model on {request}.")
    # Attached to this terminal, so that its progress bar shows and Ctrl-C reaches it.
    child = spawn_attached([*program, "train", *request.argv()], environ)
    try:
        status = child.wait()
    except KeyboardInterrupt:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_TRAINING_STOP_S)
        child.kill()
        child.wait()
        raise
    if status == NOT_ACTIVATED:
        # The training has printed the reason; the previous model is served.
        return 0
    return status if status >= 0 else 1


def _print_ready(config: Config, settings: BalancerSettings, *, keyed: bool) -> None:
    url = installation.base_url(settings)
    user = quote(_first_user(config.models_dir) or _EXAMPLE_USER, safe="")
    key = '-H "Authorization: Bearer $KEY" ' if keyed else ""
    print_line(f"Recollect is ready at {url}\n  try:   curl {key}{url}/recommend/{user}\n  stop:  Ctrl-C")


def _first_user(models_dir: Path) -> str | None:
    """Return the first user id of the active model, or None."""
    with contextlib.suppress(ModelError):
        version = active_model.version(models_dir)
        if version is not None:
            return artefact.first_user_id(models_dir / version)
    return None
