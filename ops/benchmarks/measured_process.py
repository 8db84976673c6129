"""A measured process: a module that is told its task on standard input and prints what it measured, both as JSON.

The invariant: a process measures once, so nothing of one round is left in the next.
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


def ask(module: str, task: "DataclassInstance", result: type[Result]) -> Result:
    """Run a measuring module in a process of its own, on the cores that this one may use.

    Args:
        module: Its name.
        task: What it is told.
        result: The class of what it answers.

    Returns:
        Its answer.

    Raises:
        RunError: It failed; tells the last line it said.
    """
    told = json.dumps(dataclasses.asdict(task))
    done = subprocess.run([sys.executable, "-m", module], input=told, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        raise RunError(f"{module} failed: {said[-1] if said else 'it said nothing'}")
    return result(**json.loads(done.stdout))


def answer(task: type[Task], measure: Callable[[Task], Coroutine[Any, Any, Result]]) -> None:
    """Be such a process: read the task, measure, print.

    Args:
        task: The class of the task.
        measure: measures.
    """
    result = run(measure(task(**json.loads(sys.stdin.read()))))
    json.dump(dataclasses.asdict(result), sys.stdout)
