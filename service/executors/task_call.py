"""The call of a task's function, where it runs: values in place of references, and errors as values."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from service.errors import RecollectError, RunError
from service.executors.executor import Ref


@dataclass(frozen=True)
class TaskFailed:
    """Why a task has no result.

    Attributes:
        kind: The class of the error, if it is one of Recollect's.
        why: Its sentence, or the last line of the traceback.
    """

    kind: type[RecollectError] | None
    why: str

    @classmethod
    def of(cls, error: Exception) -> "TaskFailed":
        """Describe an error that is not one of Recollect's."""
        where = traceback.extract_tb(error.__traceback__)[-1]
        return cls(None, f"{type(error).__name__}: {error} (in {where.name}, line {where.lineno})")

    def error(self) -> RecollectError:
        """Return the error to raise."""
        return RunError(f"A worker failed: {self.why}") if self.kind is None else self.kind(self.why)


def resolved(argument: Any, value_of: Callable[[Ref[Any]], Any]) -> Any:
    """Return an argument with the values of its references, also of those in a list or tuple."""
    if isinstance(argument, Ref):
        return value_of(argument)
    if type(argument) in {list, tuple}:
        return type(argument)(resolved(part, value_of) for part in argument)
    return argument


def called(function: Callable[..., Any], args: tuple[Any, ...], value_of: Callable[[Ref[Any]], Any]) -> Any:
    """Call a function with the values of its references; returns its result, or `TaskFailed`."""
    try:
        return function(*(resolved(argument, value_of) for argument in args))
    except RecollectError as error:
        return TaskFailed(type(error), str(error))
    except Exception as error:  # noqa: BLE001  # the executor reports it
        return TaskFailed.of(error)
