"""Runs commands: every error becomes one sentence on standard error and an exit code."""

import errno
import os
import resource
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import typer

from ops.console.terminal import escaping_output, print_error

# Faults of the machine or of a given path; any other error number is a defect of the program.
_ENVIRONMENT_FAULTS: Final = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP),
    *(errno.ENAMETOOLONG, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.EBUSY, errno.ESTALE),
}
# The packages of the extra `train` that are imported where they are used, as in an image that does not train.
_OF_TRAINING: Final = frozenset({"numba", "llvmlite", "optuna", "pyarrow"})
_ADDRESS_SPACE: Final = "This process may use too little address space to load its libraries: raise ulimit -v."
# The placeholder of an option's value in help.
_PLACEHOLDERS: Final[dict[object, str]] = {str: "TEXT", int: "N", float: "NUMBER", Path: "PATH", list[str]: "TEXT"}

# A model was published and not activated: scripts can distinguish it from success and from failure.
NOT_ACTIVATED: Final = 3
INTERRUPTED: Final = 130


def exit_code_of(command: Callable[[], object]) -> int:
    """Run a command and return its exit code, or that of its error, printed as one sentence.

    Args:
        command: Returns an exit code, or None for success; may raise any error of the packages or of the parser.

    Returns:
        2 for bad usage or input, 1 for a failed run, 130 for Ctrl-C.
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
        return _fail(f"{error.format_message().removesuffix('.')}.", error.exit_code)
    except (RecollectError, BalancerError) as error:
        return _fail(str(error), error.exit_code)
    except TelemetryError as error:
        return _fail(str(error), 1)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("Interrupted.", INTERRUPTED)
    except BrokenPipeError:
        # The reader of the pipe has closed it; the flush at exit would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno == errno.ENOENT and "temporary directory" in str(error):
            return _fail("No directory for temporary files can be written: name one in TMPDIR.", 1)
        if error.filename is None or error.errno not in _ENVIRONMENT_FAULTS:
            if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
                raise
            return _fail(_ADDRESS_SPACE, 1)
        return _fail(f"{error.filename} cannot be used: {error.strerror}{_advice_on(str(error.filename))}.", 1)
    except MemoryError as error:
        return _fail(f"The memory that this process may use is not enough{f': {error}' if str(error) else ''}.", 1)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in _OF_TRAINING:
            return _fail(f"This needs the package {error.name}, which is not installed: install recollect[train].", 2)
        # Too little address space shows in many kinds of import errors.
        if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
            raise
        return _fail(_ADDRESS_SPACE, 1)
    if code == INTERRUPTED:
        # typer returns this code on Ctrl-C and prints nothing.
        return _fail("Interrupted.", INTERRUPTED)
    return code if isinstance(code, int) else 0


def run(
    application: typer.Typer,
    argv: Sequence[str],
    name: str = "recollect",
    first: Callable[[], None] = lambda: None,
) -> int:
    """Run a typer application and return its exit code.

    Args:
        application: The application.
        argv: Its arguments, without the program's name.
        name: The program's name in help.
        first: Called before the command, except for help.
    """
    command: Any = typer.main.get_command(application)
    _simplify_help(command)

    def run_command() -> object:
        if argv and not {"--help", "--version"} & set(argv):
            first()
        return command.main(args=list(argv), prog_name=name, standalone_mode=False)

    with escaping_output():
        return exit_code_of(run_command)


def _advice_on(path: str) -> str:
    """Return which setting to change, if a path comes from one."""
    for name in ("RECOLLECT_LOGS", "RECOLLECT_HOME"):
        folder = os.environ.get(name)
        if folder and (f"{path}/".startswith(f"{folder}/") or f"{folder}/".startswith(f"{path}/")):
            return f"; name another place in {name}"
    return ""


def _simplify_help(command: Any) -> None:
    """Name values N and TEXT instead of Python types, and cut no sentence; a group without a command shows its help."""
    command.no_args_is_help = hasattr(command, "commands") and not command.invoke_without_command
    for parameter in command.params:
        if parameter.param_type_name == "option" and not parameter.is_flag and parameter.metavar is None:
            parameter.metavar = _PLACEHOLDERS.get(parameter.type_descriptor.annotation)
    for each in getattr(command, "commands", {}).values():
        # The whole first paragraph of each command, over several lines if it is long.
        each.short_help = each.short_help or (each.help or "").partition("\n\n")[0].replace("\n", " ")
        _simplify_help(each)


def _fail(sentence: str, code: int) -> int:
    print_error(sentence)
    return code
