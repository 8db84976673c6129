"""What networks that rank learn from data without times."""

import numpy as np
import pytest

pytest.importorskip("torch")

from service.models.history.weights import HistoryWeights
from service.training.deep.next_item.task import NextTask, chosen_inputs
from tests.support.interactions import rated

N_USERS, N_ITEMS = 60, 10


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("is_shuffled", [False, True])
def test_the_order_of_a_source_without_times_says_nothing(seed: int, is_shuffled: bool) -> None:
    """Neither the source's own order nor one that was shuffled with the seed of the fit ends with the last item."""
    data = rated([(user, item, 1.0) for user in range(N_USERS) for item in range(N_ITEMS)])
    if is_shuffled:
        data = data.take(np.random.default_rng(seed).permutation(len(data)))
    inputs = chosen_inputs(HistoryWeights(window=20), 4)
    task = NextTask.of(data, inputs, 64, 0, np.random.default_rng(seed))
    hidden = data.item_rows[task.judged]
    assert hidden.size == N_USERS
    assert np.mean(hidden == N_ITEMS - 1) < 0.4
    assert np.unique(hidden).size > N_ITEMS / 2
