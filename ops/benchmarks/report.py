"""What a benchmark prints: its result with the machine that it was measured on, and what it does meanwhile."""

import json
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ops.console.table import table
from service.errors import RunError


def report(
    figures: dict[str, Any], title: str, headings: Sequence[str], rows: Iterable[Sequence[str]], *, as_json: bool
) -> None:
    """Print a result and the machine it was measured on, as one JSON object or as a table."""
    if as_json:
        print_json(figures)
        return
    if title:
        print(title)
    print(table(headings, rows, left={0}))
    print(", ".join(_machine().values()))


def print_json(figures: dict[str, Any]) -> None:
    """Print a result with the machine and its load, as one JSON object."""
    print(json.dumps(figures | {"machine": _machine(), "load_1m": os.getloadavg()[0]}, indent=2))


def require_ratio(ratio: float, least: float | None) -> None:
    """Fail if a ratio is lower than the objective `--min-ratio`.

    Raises:
        RunError: It is.
    """
    if least is not None and ratio < least:
        raise RunError(f"The objective --min-ratio {least:g} was missed: the ratio is {ratio:.3f}.")


def note(sentence: str) -> None:
    """Say on standard error what a benchmark does; standard output has its result alone."""
    print(sentence, file=sys.stderr, flush=True)


def _machine() -> dict[str, str]:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return {
        "processor": next(names, platform.machine()),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
