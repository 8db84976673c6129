"""Programs whose output is a pseudo-terminal."""

import os
import pty
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[3]


class FinishedProgram(NamedTuple):
    """The exit code of a program, its standard output, and what its terminal got."""

    code: int
    out: bytes
    drawn: bytes


def run_with_terminal_stderr(arguments: Sequence[str], *, columns: int) -> FinishedProgram:
    """Run Python with these arguments in the repository, its standard error on a terminal of so many columns."""
    controller, terminal = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env={**os.environ, "TERM": "xterm", "COLUMNS": str(columns)},
            stdout=subprocess.PIPE,
            stderr=terminal,
        )
        os.close(terminal)
        drawn = read_to_end(controller)
        out, _ = process.communicate(timeout=60)
    finally:
        os.close(controller)
    return FinishedProgram(process.returncode, out, drawn)


def read_to_end(controller: int) -> bytes:
    """Return everything written to the terminal of a controller, until no process has it open."""
    text = b""
    while True:
        try:
            piece = os.read(controller, 65_536)
        except OSError:
            # EIO is the end of file of a terminal on Linux.
            return text
        if not piece:
            return text
        text += piece
