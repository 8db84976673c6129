"""Turns what ends a command early into one sentence on standard error and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import typer

# A model was published and not activated: neither a success nor a failure, so that scripts can tell it from both.
HELD_BACK: Final = 3
INTERRUPTED: Final = 130


def told(command: Callable[[], object]) -> int:
    """Run a command and return its exit code.

    Args:
        command: returns an exit code, or None for success; may raise any error of ours or of the command line's parser.

    Returns:
        Its code, or that of the error: 2 for bad usage or input, 1 for a failed run, 130 for Ctrl-C.
    """
    from loadbalancer.errors import BalancerError
    from service.errors import RecollectError
    from telemetry.errors import TelemetryError

    try:
        code = command()
    except typer.TyperException as error:
        return _say(error.format_message(), error.exit_code)
    except (RecollectError, BalancerError) as error:
        return _say(str(error), error.exit_code)
    except TelemetryError as error:
        return _say(str(error), 1)
    except (KeyboardInterrupt, typer.Abort):
        return _say("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # The reader of a pipe has left; anything more, at exit too, would only fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code if isinstance(code, int) else 0


def run(application: typer.Typer, argv: Sequence[str], name: str = "recollect") -> int:
    """Run a typer application and return its exit code, every error told as one sentence.

    Args:
        application: the application.
        argv: its arguments, without the program's name.
        name: the program's name, as its help shows it.
    """
    command: Any = typer.main.get_command(application)
    return told(lambda: command.main(args=list(argv), prog_name=name, standalone_mode=False))


def _say(sentence: str, code: int) -> int:
    text = " ".join(sentence.split())
    sys.stderr.write(f"recollect: {text}\n")
    return code
