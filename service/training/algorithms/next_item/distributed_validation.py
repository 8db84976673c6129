"""The scores of candidates of `next_item` on the validation, by the workers of an executor.

Invariant: a score is that of `Validation.score`, to the last bit, because a task judges whole batches of users.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import numpy as np

from service.executors.executor import executor_in_use
from service.training.algorithms.kernels.sparse import row_parts
from service.training.algorithms.next_item.validation import Validation
from service.training.interactions import Float64, Int64

_TASKS: Final = 32
_STAGE: Final = "next_item: validation"

ScoresOf = Callable[[Any, Any, Int64], Float64]
"""(known, model, users) -> the scores of all items for users: float64 (m, n_items). It is at the top of a module."""


def scores(validation: Validation, scores_of: ScoresOf, known: Any, models: Sequence[Any]) -> list[float]:
    """Return the score of each model, with the executor in use if there is one.

    Args:
        known: The inputs of all users of the validation.
        models: What their scores are computed with.
    """
    executor = executor_in_use()
    if executor is None:
        return [validation.score(partial(scores_of, known, model)) for model in models]
    n_judged = validation.judged.size
    n_batches = -(-n_judged // validation.batch_size)
    size = -(-n_batches // _TASKS) * validation.batch_size
    places = [(number, *bounds) for number in range(len(models)) for bounds in row_parts.ranges(n_judged, size)]
    shared = [executor.put(validation), executor.put(known)]
    refs = [executor.put(model) for model in models]
    values = np.empty((len(models), n_judged))
    tasks = [(scores_of, *shared, refs[number], first, end) for number, first, end in places]
    for task, found in executor.completed(_ndcg, tasks, stage=_STAGE):
        number, first, end = places[task]
        values[number, first:end] = found
    executor.release([*shared, *refs])
    return [validation.mean(each) for each in values]


def _ndcg(scores_of: ScoresOf, validation: Validation, known: Any, model: Any, first: int, end: int) -> Float64:
    return validation.ndcg_of(first, end, partial(scores_of, known, model))
