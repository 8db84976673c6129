"""Compiles an algorithm's kernels, or loads them, before anything is measured, so that no measured time includes it."""

import numpy as np

from service.models.vocabulary import Vocabulary
from service.training.algorithms.registry import ConfiguredAlgorithm
from service.training.evaluation.top_n_lists import top_n_lists
from service.training.interactions import Interactions, ReadReport, no_progress


def compile_kernels(candidate: ConfiguredAlgorithm, data: Interactions) -> None:
    """Fit a few ratings on the scale of `data`, with times if it has any, make lists and predict."""
    users, items = np.divmod(np.arange(30, dtype=np.int32), 5)
    is_kept = (users + items) % 3 > 0
    n = int(is_kept.sum())
    low, high = data.rating_min, data.rating_max
    tiny = Interactions(
        users=Vocabulary(str(row) for row in range(6)),
        items=Vocabulary(str(row) for row in range(5)),
        user_rows=users[is_kept],
        item_rows=items[is_kept],
        ratings=np.where(np.arange(n) % 2, low, high).astype(np.float32),
        timestamps=None if data.timestamps is None else np.arange(n),
        rating_min=low,
        rating_max=high,
        fingerprint="",
        report=ReadReport(source=""),
    )
    snapshot = candidate.algorithm.fit(tiny, candidate.config, np.random.default_rng(0), no_progress)
    top_n_lists(snapshot, np.arange(6), 2)
    if candidate.algorithm.kind == "rating":
        candidate.algorithm.predict(snapshot, tiny.user_rows, tiny.item_rows)
