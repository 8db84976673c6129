"""`recollect VERB`: parse, then call one function. What a verb needs is imported inside it, so that each starts fast.

Invariant: every error is one clear sentence on standard error; exit 2 for bad usage or input, 1 for a failed run, 0 for
success. Only a fault of ours shows a traceback.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ops.console import foreground
from ops.console.command_runner import run
from ops.options.data_options import (
    ColumnsOption,
    DataOption,
    DatesOption,
    DecimalOption,
    EncodingOption,
    OptionalDataOption,
    requested_data,
)
from service.config import Config

app = typer.Typer(
    name="recollect",
    help="A self-hosted recommendation service that answers from memory and remembers everything it served.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
models_app = typer.Typer(help="The published models.", no_args_is_help=True, rich_markup_mode=None)
balance_app = typer.Typer(help="nginx and its replicas.", invoke_without_command=True, rich_markup_mode=None)
app.add_typer(models_app, name="models")
app.add_typer(balance_app, name="balance")

# What `service.training.algorithms.registry` has. Importing it would cost help half a second.
ALGORITHMS = (
    "svd, svdpp, nmf, bayesian_mf, slope_one, knn_basic, knn_means, knn_baseline, baseline, ials, softmax, ease, "
    "item_knn, popularity, or a preset: best, best_ranking"
)

Json = Annotated[bool, typer.Option("--json", help="Print one machine-readable object.")]
Replicas = Annotated[
    int | None, typer.Option("--replicas", min=1, max=256, help="How many replicas; RECOLLECT_REPLICAS, or 3.")
]
Port = Annotated[
    int | None, typer.Option("--port", min=1, max=65535, help="The balancer's port; RECOLLECT_PORT, or 8080.")
]
Threads = Annotated[int, typer.Option("--threads", min=0, help="Cores to use at most; 0 for all.")]
Claim = Annotated[
    bool, typer.Option("--claim", help="Take the place in Redis over from another archive; its producers follow.")
]
Supervised = Annotated[
    bool, typer.Option("--supervised", hidden=True, help="Started by up or balance, which has looked at Redis.")
]
Host = Annotated[str | None, typer.Option("--host", help="Address to listen on.")]
Insecure = Annotated[
    bool,
    typer.Option(
        "--insecure",
        help="Listen beyond this machine without API keys: everyone who reaches the port may read any list, post events"
        " for any user and erase any user.",
    ),
]


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"recollect {version('recollect')}")
        raise typer.Exit


@app.callback()
def recollect(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Answer from memory and remember everything that was served: a self-hosted recommendation service."""


@app.command()
def up(
    data: OptionalDataOption = None,
    columns: ColumnsOption = None,
    dates: DatesOption = None,
    encoding: EncodingOption = None,
    decimal: DecimalOption = None,
    replicas: Replicas = None,
    port: Port = None,
    insecure: Insecure = False,
    claim: Claim = False,
) -> int:
    """Start everything on this machine: Redis, a model, replicas, nginx in front, the consumer."""
    from ops.commands.up import up as run_up

    config = _config()
    wanted = requested_data(config, data, columns, dates, encoding, decimal) if data else None
    return run_up(config, data=wanted, replicas=replicas, port=port, insecure=insecure, claim=claim)


@app.command()
def serve(
    host: Host = None,
    port: Annotated[int | None, typer.Option("--port", min=1, max=65535, help="Port for requests.")] = None,
    admin_port: Annotated[int | None, typer.Option("--admin-port", min=1, max=65535, help="Port for metrics.")] = None,
    slot: Annotated[
        int | None, typer.Option("--slot", min=0, help="Telemetry slot; by default the lowest free.")
    ] = None,
    insecure: Insecure = False,
    supervised: Supervised = False,
) -> int:
    """Run one replica."""
    import dataclasses

    from service.replica import serve as run_replica

    config = _config()
    given: dict[str, Any] = {"host": host, "port": port, "admin_port": admin_port}
    server = dataclasses.replace(config.server, **{name: value for name, value in given.items() if value is not None})
    run_replica(dataclasses.replace(config, server=server), slot, insecure=insecure, supervised=supervised)
    return 0


@app.command()
def consume(
    admin_port: Annotated[int, typer.Option("--admin-port", min=1, max=65535, help="Port for metrics.")] = 8092,
    claim: Claim = False,
    supervised: Supervised = False,
) -> int:
    """Run the telemetry consumer job."""
    from service.consumer_job import consume as run_consumer

    run_consumer(_config(), admin_port, claim=claim, supervised=supervised)
    return 0


@balance_app.callback()
def balance(
    context: typer.Context,
    replicas: Replicas = None,
    port: Port = None,
    insecure: Insecure = False,
) -> int:
    """Run nginx and its replicas; Redis and the consumer run elsewhere."""
    if context.invoked_subcommand is not None:
        return 0
    from ops.commands.balance import balance as run_balance

    return run_balance(_config(), replicas=replicas, port=port, insecure=insecure)


@balance_app.command("restart")
def balance_restart(as_json: Json = False) -> int:
    """Restart every replica of the running installation, one at a time, losing no request."""
    from ops.commands.balance import restart

    return restart(_config(), as_json=as_json)


@balance_app.command("reload")
def balance_reload() -> int:
    """Have nginx read a new certificate, losing no request."""
    from ops.commands.balance import reload

    return reload(_config())


@app.command()
def train(
    data: DataOption,
    algorithm: Annotated[
        str | None,
        typer.Option("--algorithm", help=f"One of {ALGORITHMS}; by default svd, or ials without ratings."),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting of the algorithm.")
    ] = None,
    scale: Annotated[
        str | None, typer.Option("--scale", help="The least and the largest rating, as 1:5; others are clipped.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seeds the split and the fit.")] = 0,
    activate: Annotated[
        bool | None,
        typer.Option("--activate/--no-activate", help="Serve it in any case, or not; else unless it is much worse."),
    ] = None,
    threads: Threads = 0,
    columns: ColumnsOption = None,
    dates: DatesOption = None,
    encoding: EncodingOption = None,
    decimal: DecimalOption = None,
    as_json: Json = False,
) -> int:
    """Fit, measure on a hold-out, publish a version, activate it."""
    from ops.commands.train import train as run_train

    config = _config()
    return run_train(
        config,
        data=requested_data(config, data, columns, dates, encoding, decimal),
        algorithm=algorithm,
        settings=settings or [],
        scale=scale,
        seed=seed,
        activate=activate,
        threads=threads,
        as_json=as_json,
    )


@app.command()
def evaluate(
    data: DataOption,
    algorithms: Annotated[
        str, typer.Option("--algorithms", help="Names, or label=name, comma separated; popularity is added.")
    ] = "",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting, as algorithm.name=value or label.name=value.")
    ] = None,
    scale: Annotated[
        str | None, typer.Option("--scale", help="The least and the largest rating, as 1:5; others are clipped.")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option("--split", help="folds (the default), leave-one-out, time, time-per-user, canonical or given."),
    ] = None,
    folds: Annotated[int | None, typer.Option("--folds", min=2, max=100, help="Random folds; 5.")] = None,
    test_share: Annotated[
        float | None, typer.Option("--test-share", help="The part that a split by time judges by; 0.2.")
    ] = None,
    test: Annotated[str | None, typer.Option("--test", help="Judge by this set; learn from --data.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seeds the splits, the fits and the samples.")] = 0,
    k: Annotated[str, typer.Option("--k", help="Lengths of the lists to judge, comma separated.")] = "10,20",
    relevant_from: Annotated[
        float | None, typer.Option("--relevant-from", help="The least rating of a relevant item; by default all are.")
    ] = None,
    users: Annotated[
        int | None, typer.Option("--users", min=1, help="Judge the lists of so many sampled users.")
    ] = None,
    sampled: Annotated[
        int | None, typer.Option("--sampled", min=1, help="Rank among so many sampled items, too.")
    ] = None,
    threads: Threads = 0,
    report: Annotated[Path | None, typer.Option("--report", help="Write a page of it that stands alone.")] = None,
    columns: ColumnsOption = None,
    dates: DatesOption = None,
    encoding: EncodingOption = None,
    decimal: DecimalOption = None,
    as_json: Json = False,
) -> int:
    """Compare algorithms on the same splits."""
    from ops.commands.evaluate import evaluate as run_evaluate

    config = _config()
    return run_evaluate(
        config,
        data=requested_data(config, data, columns, dates, encoding, decimal),
        algorithms=[name.strip() for name in algorithms.split(",") if name.strip()],
        settings=settings or [],
        scale=scale,
        split=split,
        folds=folds,
        test_share=test_share,
        test=None if test is None else requested_data(config, [test], columns, dates, encoding, decimal),
        seed=seed,
        ks=k,
        relevant_from=relevant_from,
        most_users=users,
        n_negatives=sampled,
        threads=threads,
        report=report,
        as_json=as_json,
    )


@models_app.command("list")
def models_list(as_json: Json = False) -> int:
    """List the published versions, oldest first."""
    from ops.commands.models import show_all

    return show_all(_config(), as_json=as_json)


@models_app.command("show")
def models_show(
    version: Annotated[str | None, typer.Argument(help="By default the active one.")] = None, as_json: Json = False
) -> int:
    """Print a version's manifest as JSON."""
    from ops.commands.models import show

    return show(_config(), version)


@models_app.command("activate")
def models_activate(
    version: Annotated[str, typer.Argument(help="An older one is the rollback.")], as_json: Json = False
) -> int:
    """Serve another version."""
    from ops.commands.models import activate as run_activate

    return run_activate(_config(), version, as_json=as_json)


@app.command()
def doctor(as_json: Json = False) -> int:
    """Say whether this installation is sound."""
    from ops.commands.doctor import doctor as run_doctor

    return run_doctor(_config(), as_json=as_json)


# Verbs that compute for long in kernels that no signal reaches.
_COMPUTING = frozenset({"train", "evaluate", "search"})
# Verbs that write state, logs and users' data, and nothing that other users are to read.
_PRIVATE = frozenset({"up", "serve", "consume", "balance", "train", "models", "keys", "deadletters", "archive"})


def main() -> None:
    """Be the console script."""
    argv = sys.argv[1:]
    if argv and argv[0] in _PRIVATE:
        # Whatever they make, and whatever is made on the way to it, is its owner's alone, and so is what their children
        # make: Redis, nginx and its logs.
        os.umask(0o077)
    _register_late(argv)
    if argv and argv[0] in _COMPUTING:
        sys.exit(foreground.run(lambda: run(app, argv, first=_adopt)))
    sys.exit(run(app, argv, first=_adopt))


def _register_late(argv: Sequence[str]) -> None:
    """Add the verbs whose options live beside their code, unless the verb asked for is another one.

    A replica restarts within a second partly because it does not import the load test.
    """
    if argv and argv[0] in {"serve", "consume", "up", "balance", "train", "evaluate", "models", "doctor"}:
        return
    from ops.commands.keys import app as keys_app

    app.add_typer(keys_app, name="keys")
    if argv and argv[0] == "keys":
        return
    from ops.commands.archive import app as archive_app
    from ops.commands.audit import command as audit_command
    from ops.commands.chaos import command as chaos_command
    from ops.commands.deadletters import app as deadletters_app
    from ops.commands.search import command as search_command
    from ops.loadtest import command as loadtest_command

    app.add_typer(deadletters_app, name="deadletters")
    app.command("loadtest")(loadtest_command)
    app.command("audit")(audit_command)
    app.command("search")(search_command)
    app.command("chaos")(chaos_command)
    app.add_typer(archive_app, name="archive")


def _adopt() -> None:
    from ops.options.environment import adopt, working_directory

    adopt(os.environ, working_directory())


def _config() -> Config:
    from service.config import from_env

    return from_env(os.environ)
