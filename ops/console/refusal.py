"""Turns what ends a command early into one sentence on standard error and an exit code."""

import errno
import os
import resource
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import typer

from ops.console.terminal import guarded

# What is wrong with a machine or with a path that was given, and not with us.
_OF_THE_MACHINE: Final = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP),
    *(errno.ENAMETOOLONG, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.EBUSY, errno.ESTALE),
}
_ADDRESS_SPACE: Final = "this process may use too little address space to load what it needs: raise ulimit -v"
# How help names the values of options.
_VALUES: Final[dict[object, str]] = {str: "TEXT", int: "N", float: "NUMBER", Path: "PATH", list[str]: "TEXT"}

# A model was published and not activated: neither a success nor a failure, so that scripts can tell it from both.
HELD_BACK: Final = 3
INTERRUPTED: Final = 130


def told(command: Callable[[], object]) -> int:
    """Run a command and return its exit code.

    Args:
        command: Returns an exit code, or None for success; may raise any error of ours or of the command line's parser.

    Returns:
        Its code, or that of the error: 2 for bad usage or input, 1 for a failed run, 130 for Ctrl-C.
    """
    from loadbalancer.errors import BalancerError
    from service.errors import RecollectError
    from telemetry.errors import TelemetryError

    try:
        code = command()
    except typer.TyperException as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.format_message())
            return 0
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
    except OSError as error:
        if error.errno == errno.ENOENT and "temporary directory" in str(error):
            return _say("no directory for temporary files can be written: name one in TMPDIR", 1)
        if error.filename is None or error.errno not in _OF_THE_MACHINE:
            if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
                raise
            return _say(_ADDRESS_SPACE, 1)
        return _say(f"{error.filename} cannot be used: {error.strerror}{_setting_of(str(error.filename))}", 1)
    except MemoryError as error:
        return _say(f"the memory that this process may use is not enough{f': {error}' if str(error) else ''}", 1)
    except ImportError:
        # What cannot be loaded in too little address space says so in many ways.
        if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
            raise
        return _say(_ADDRESS_SPACE, 1)
    if code == INTERRUPTED:
        # typer makes this status of Ctrl-C, and says nothing.
        return _say("interrupted", INTERRUPTED)
    return code if isinstance(code, int) else 0


def run(
    application: typer.Typer,
    argv: Sequence[str],
    name: str = "recollect",
    first: Callable[[], None] = lambda: None,
) -> int:
    """Run a typer application and return its exit code, every error told as one sentence.

    Args:
        application: The application.
        argv: Its arguments, without the program's name.
        name: The program's name, as its help shows it.
        first: Called before the command, unless help is asked for.
    """
    command: Any = typer.main.get_command(application)
    _plain(command)

    def whole() -> object:
        if argv and not {"--help", "--version"} & set(argv):
            first()
        return command.main(args=list(argv), prog_name=name, standalone_mode=False)

    with guarded():
        return told(whole)


def _setting_of(path: str) -> str:
    """Say which setting a path comes from."""
    for name in ("RECOLLECT_LOGS", "RECOLLECT_HOME"):
        folder = os.environ.get(name)
        if folder and (f"{path}/".startswith(f"{folder}/") or f"{folder}/".startswith(f"{path}/")):
            return f"; name another place in {name}"
    return ""


def _plain(command: Any) -> None:
    """Have help name values N and TEXT instead of types of the programming language, and cut no sentence.

    A group without a command shows its help.
    """
    command.no_args_is_help = hasattr(command, "commands") and not command.invoke_without_command
    for parameter in command.params:
        if parameter.param_type_name == "option" and not parameter.is_flag and parameter.metavar is None:
            parameter.metavar = _VALUES.get(parameter.type_descriptor.annotation)
    for each in getattr(command, "commands", {}).values():
        # A list of commands has each one's whole first paragraph, over two lines if need be, and not its first words.
        each.short_help = each.short_help or (each.help or "").partition("\n\n")[0].replace("\n", " ")
        _plain(each)


def _say(sentence: str, code: int) -> int:
    text = " ".join(sentence.split())
    sys.stderr.write(f"recollect: {text}\n")
    return code
