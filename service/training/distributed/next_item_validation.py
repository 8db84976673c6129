"""The score of a candidate of `next_item` on the validation, by the workers of an executor.

Invariant: the score is that of `Validation.score`, to the last bit, because a task judges whole batches of users.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from service.executors.executor import executor_in_use
from service.training.algorithms.kernels import row_parts
from service.training.algorithms.next_item_validation import Validation
from service.training.interactions import Float64, Int64

_TASKS: Final = 32
_STAGE: Final = "next_item: validation"

ScoresOf = Callable[[Any, Any, Int64], Float64]
"""(known, model, users) -> the scores of all items for users: float64 (m, n_items). It is at the top of a module."""


def score(validation: Validation, scores_of: ScoresOf, known: Any, model: Any) -> float:
    """Return the score of a model, with the executor in use if there is one.

    Args:
        known: The inputs of all users of the validation.
        model: What their scores are computed with.
    """
    executor = executor_in_use()
    if executor is None:
        return validation.score(lambda users: scores_of(known, model, users))
    n_batches = -(-validation.judged.size // validation.batch_size)
    size = -(-n_batches // _TASKS) * validation.batch_size
    ranges = row_parts.ranges(validation.judged.size, size)
    shared = [executor.put(value) for value in (validation, known, model)]
    values = np.empty(validation.judged.size)
    tasks = [(scores_of, *shared, *bounds) for bounds in ranges]
    for task, found in executor.completed(_ndcg, tasks, stage=_STAGE):
        first, end = ranges[task]
        values[first:end] = found
    executor.release(shared)
    return validation.mean(values)


def _ndcg(scores_of: ScoresOf, validation: Validation, known: Any, model: Any, first: int, end: int) -> Float64:
    return validation.ndcg_of(first, end, lambda users: scores_of(known, model, users))
