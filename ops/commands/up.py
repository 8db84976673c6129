"""`recollect up`: everything on this machine, started in order, supervised, and stopped in order."""

import contextlib
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final, NamedTuple
from urllib.parse import quote

import typer

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
from ops.options.shared_options import (
    CandidatesOption,
    ClaimOption,
    InsecureOption,
    PortOption,
    ReplicasOption,
)
from ops.program import PROGRAM
from service.config import Config, from_env
from service.errors import ModelError, RunError, UsageError
from service.models.files import active_model, artefact
from service.models.publication import publication
from service.training.data.data_request import DataRequest

_TRAINING_STOP_S = 10.0
_EXAMPLE_USER = "new-user"


class ModelOptions(NamedTuple):
    """What `up` asks of the model that it serves."""

    algorithm: str | None = None  # a name, as for train; None for any active model, and auto for a new one
    force: bool = False  # serve a new model in any case

    def argv(self) -> list[str]:
        """Return the options of train."""
        return [*(["--algorithm", self.algorithm] if self.algorithm else []), *(["--force"] if self.force else [])]


ANY_MODEL: Final = ModelOptions()


def command(
    *,
    data: OptionalDataOption = None,
    columns: ColumnsOption = None,
    dates: DatesOption = None,
    encoding: EncodingOption = None,
    decimal: DecimalOption = None,
    algorithm: Annotated[
        str | None,
        typer.Option(
            "--algorithm",
            metavar="NAME",
            help="As for train; train unless the active version is of this algorithm. By default auto.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Serve the trained version in any case, as train --force does.")
    ] = False,
    replicas: ReplicasOption = None,
    candidates: CandidatesOption = None,
    port: PortOption = None,
    insecure: InsecureOption = False,
    claim: ClaimOption = False,
) -> int:
    """Start everything on this machine: Redis, a model, replicas, nginx in front, the consumer."""
    config = from_env(os.environ)
    request = requested_data(config, data, columns, dates, encoding, decimal) if data else None
    options = ModelOptions(algorithm, force=force)
    return up(
        config,
        data=request,
        model=options,
        replicas=replicas,
        candidates=candidates,
        port=port,
        insecure=insecure,
        claim=claim,
    )


def up(
    config: Config,
    *,
    data: DataRequest | None = None,
    model: ModelOptions = ANY_MODEL,
    replicas: int | None = None,
    candidates: int | None = None,
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
    settings = balancer_settings(environ, replicas=replicas, candidates=candidates, port=port)
    # Fails here with one sentence instead of in every replica at every start.
    config.pseudonymiser()
    keys = key_environ(config, settings, insecure=insecure)
    nginx, redis = installation.find_binaries(settings, redis=config.redis_url is None)
    print_line(f"State in {config.home}, logs in {config.logs}.")
    with held_home(config, settings):
        if redis is None:
            check_redis(config, consumer=True, claim=claim)
        children = {**children_environ(config, environ), **keys}
        status = ensure_model(config, data, program, children, model)
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
            insecure=insecure,
        )
    print_line("Stopped.")
    return 0


def ensure_model(
    config: Config,
    data: DataRequest | None,
    program: Sequence[str],
    environ: Mapping[str, str],
    model: ModelOptions = ANY_MODEL,
) -> int:
    """Train unless the active model suffices; return the exit code of the training, else 0.

    A new model that is not activated leaves the active one serving; without an active one nothing can be served.
    """
    from service.training.training_need import needed_training

    request = needed_training(config, data, model.algorithm)
    if request is None or _begins_with_initial_model(config, data, model.algorithm):
        return 0
    by = "the algorithm with the best lists" if model.algorithm in {None, "auto"} else model.algorithm
    print_line(f"Training a model on {request}: {by}.")
    # Attached to this terminal, so that its progress bar shows and Ctrl-C reaches it.
    child = spawn_attached([*program, "train", *request.argv(), *model.argv()], environ)
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
        # The training has printed the reason; the previous model is served, if there is one.
        return 0 if active_model.version(config.models_dir) is not None else NOT_ACTIVATED
    return status if status >= 0 else 1


def _begins_with_initial_model(config: Config, data: DataRequest | None, algorithm: str | None) -> bool:
    """Serve the model that the installation brings, if it has no other one and is asked for no other one.

    Raises:
        RunError: The model store cannot be written.
    """
    from service.models.files import versions
    from service.models.publication import initial_model
    from service.training.data import datasets

    initial_dir = config.models.initial_dir
    if initial_dir is None or versions.published(config.models_dir):
        return False
    fingerprint = None if data is None else datasets.fingerprint(data)
    try:
        if not initial_model.is_of(initial_dir, fingerprint, algorithm):
            return False
        version = initial_model.publish(config.models_dir, initial_dir, config.pseudonymiser())
    except ModelError as error:
        raise UsageError(f"RECOLLECT_INITIAL_MODELS: {error}") from error
    except OSError as error:
        raise RunError(f"The model cannot be published in {config.models_dir}: {error.strerror or error}.") from error
    if version is None:
        return False
    publication.log_activation(config.security_dir, version, by="up")
    print_line(f"Serving the model {version}, which came with this installation.")
    return True


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
