"""A process that has loaded what every Python part needs, and waits to be told which one to be.

Started by `up` and `balance`. It reads one line of JSON from its standard input, {"words": [...], "output": "..."}: the
verb with its options, and the file for its standard output and error. The end of the input ends it.
"""

import ctypes
import gc
import importlib
import json
import os
import sys
from pathlib import Path

from ops.program import TITLE_BYTES

# Fields of /proc/self/stat, counted from 1 (proc(5)).
_ARG_START, _ARG_END = 48, 49


def main() -> None:
    """Load, wait, and become a part."""
    # Loading must not take the cores from those who serve.
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    from ops import cli

    _load()
    order = sys.stdin.readline()
    if not order:
        return
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    told = json.loads(order)
    _take_over(Path(told["output"]))
    sys.argv = ["recollect", *told["words"]]
    _rename([sys.executable, "-m", "ops", *told["words"]])
    cli.main()


def _load() -> None:
    for name in ("uvloop", "ops.options.environment", "service.consumer_job", "service.replica"):
        importlib.import_module(name)
    gc.freeze()


def _take_over(output: Path) -> None:
    """Write to the part's file from now on, and read nothing."""
    written = os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(written, 1)
    os.dup2(written, 2)
    os.close(written)
    os.close(nothing)


def _rename(argv: list[str]) -> None:
    """Show a command line that says what this is now (proc(5): arg_start and arg_end of stat).

    The words are the kernel's window into our own memory; where it cannot be found, the name stays what it was.
    """
    # Behind the name in brackets, which may hold anything, comes the third field.
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[_ARG_START - 3]), int(fields[_ARG_END - 3])
    if start and end - start > TITLE_BYTES:
        ctypes.memset(start, 0, end - start)
        line = b"\0".join(map(os.fsencode, argv))[: end - start - 1]
        ctypes.memmove(start, line, len(line))


if __name__ == "__main__":
    main()
