"""`recollect VERB`: the table of verbs. Only the requested verb is imported, so that every verb starts fast.

Invariant: every error is one sentence on standard error. The exit code is 2 for bad usage or input, 1 for a failed run,
0 for success. Only a defect shows a traceback.
"""

import importlib
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import typer

from ops.console import first_process, foreground
from ops.console.command_runner import run


@dataclass(frozen=True)
class Verb:
    """One verb.

    Args:
        command: MODULE:NAME of a typer application, or of a function whose signature declares the options.
        private: Whether it writes state, logs or data of users, so that its files need mode 0600.
        computes: Whether it runs long kernels during which Python handles no signal.
        supervises: Whether it is fit to be PID 1 of a container by itself: it reaps all processes and handles signals.
    """

    command: str
    private: bool = False
    computes: bool = False
    supervises: bool = False


VERBS = {
    "up": Verb("ops.commands.up:command", private=True, supervises=True),
    "serve": Verb("ops.commands.serve:command", private=True),
    "consume": Verb("ops.commands.consume:command", private=True),
    "balance": Verb("ops.commands.balance:app", private=True, supervises=True),
    "cluster": Verb("ops.commands.cluster:app", private=True),
    "train": Verb("ops.commands.train:command", private=True, computes=True),
    "evaluate": Verb("ops.commands.evaluate:command", computes=True),
    "search": Verb("ops.commands.search:command", computes=True),
    "generate": Verb("ops.commands.generate:app", private=True, computes=True),
    "recommend": Verb("ops.commands.recommend:command"),
    "similar": Verb("ops.commands.similar:command"),
    "predict": Verb("ops.commands.predict:command"),
    "models": Verb("ops.commands.models:app", private=True),
    "items": Verb("ops.commands.items:app"),
    "keys": Verb("ops.commands.keys:app", private=True),
    "archive": Verb("ops.commands.archive:app", private=True),
    "deadletters": Verb("ops.commands.deadletters:app", private=True),
    "audit": Verb("ops.commands.audit:command"),
    "replay": Verb("ops.commands.replay:command"),
    "doctor": Verb("ops.commands.doctor:command"),
    "health": Verb("ops.commands.health:command"),
    "chaos": Verb("ops.commands.chaos:command"),
    "loadtest": Verb("ops.loadtest:command"),
}


def main() -> None:
    """Run the console script."""
    argv = sys.argv[1:]
    name = argv[0] if argv else ""
    verb = VERBS.get(name)
    if os.getpid() == 1 and not (verb is not None and verb.supervises):
        first_process.split_off()
    if verb is not None and verb.private:
        # Children inherit it, so the files of Redis and nginx are private too.
        os.umask(0o077)
    app = application([name] if verb is not None else VERBS)
    if verb is not None and verb.computes:
        sys.exit(foreground.run(lambda: run(app, argv, first=_adopt_environment)))
    sys.exit(run(app, argv, first=_adopt_environment))


def application(names: Iterable[str] = tuple(VERBS)) -> typer.Typer:
    """Return the application with some verbs, importing their modules."""
    app = typer.Typer(
        name="recollect",
        help="A self-hosted recommendation service that answers from memory and records everything it served.",
        no_args_is_help=True,
        add_completion=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.callback()(_recollect)
    for name in names:
        module, _, attribute = VERBS[name].command.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)
    return app


def _print_version(requested: bool) -> None:  # noqa: FBT001 - typer calls it
    if requested:
        from importlib.metadata import version

        print(f"recollect {version('recollect')}")
        raise typer.Exit


def _recollect(
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Answer from memory and record everything that was served: a self-hosted recommendation service."""


def _adopt_environment() -> None:
    from ops.options.environment import adopt, working_directory

    adopt(os.environ, working_directory())
