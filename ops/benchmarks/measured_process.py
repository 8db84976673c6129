"""Measured processes: a module reads a task from standard input and prints its result, both as JSON.

Invariant: a process measures once, so that no round affects the next.
"""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from service.errors import RunError
from service.event_loop import run

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Task = TypeVar("Task", bound="DataclassInstance")
Result = TypeVar("Result", bound="DataclassInstance")


def run_measured(module: str, task: "DataclassInstance", result: type[Result]) -> Result:
    """Run a measuring module in a process of its own, on the cores of this one.

    Raises:
        RunError: It failed; the message has its last line of output.
    """
    text = json.dumps(dataclasses.asdict(task))
    done = subprocess.run([sys.executable, "-m", module], input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise RunError(f"{module} failed: {lines[-1] if lines else 'it printed nothing'}.")
    return result(**json.loads(done.stdout))


def measured_main(task: type[Task], measure: Callable[[Task], Coroutine[Any, Any, Result]]) -> None:
    """Read a task, measure, and print the result: the program of a measured process."""
    result = run(measure(task(**json.loads(sys.stdin.read()))))
    json.dump(dataclasses.asdict(result), sys.stdout)
