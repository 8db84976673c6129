"""A preloaded process that waits to become a Python part.

`up` and `balance` start it. It reads one line of JSON from its standard input, {"arguments": [...], "output": "..."}:
the verb with its options, and the file for its standard output and error. At the end of the input it exits.
"""

import ctypes
import gc
import importlib
import json
import os
import sys
from pathlib import Path

from ops.program import PROGRAM, TITLE_BYTES

# Fields of /proc/self/stat, counted from 1 (proc(5)).
_ARG_START, _ARG_END = 48, 49


def main() -> None:
    """Load the modules, wait, and become a part."""
    # Loading must not take the cores from serving parts.
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    from ops import cli

    for name in ("uvloop", "ops.options.environment", "service.consumer_job", "service.replica"):
        importlib.import_module(name)
    gc.freeze()
    line = sys.stdin.readline()
    if not line:
        return
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    assignment = json.loads(line)
    _redirect_output(Path(assignment["output"]))
    sys.argv = ["recollect", *assignment["arguments"]]
    _set_command_line([*PROGRAM, *assignment["arguments"]])
    cli.main()


def _redirect_output(output: Path) -> None:
    """Write standard output and error to the part's file, and make standard input empty."""
    written = os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(written, 1)
    os.dup2(written, 2)
    os.close(written)
    os.close(nothing)


def _set_command_line(argv: list[str]) -> None:
    """Show the part's command line in /proc, by writing to the memory that holds this process's own.

    arg_start and arg_end of /proc/self/stat (proc(5)) bound that memory; where they are hidden, nothing changes.
    """
    # The second field, the command name in brackets, may contain spaces and brackets.
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[_ARG_START - 3]), int(fields[_ARG_END - 3])
    if start and end - start > TITLE_BYTES:
        ctypes.memset(start, 0, end - start)
        line = b"\0".join(map(os.fsencode, argv))[: end - start - 1]
        ctypes.memmove(start, line, len(line))


if __name__ == "__main__":
    main()
