"""Small sets of ratings and the same as dense tables, for slow references."""

import numpy as np
from numpy.typing import NDArray

from service.training.data import datasets
from service.training.interactions import Interactions


def ratings(*, whole: bool = True) -> Interactions:
    """Some 300 ratings by 30 users of 20 items, two of each unknown; whole numbers, or none of them equal."""
    data = datasets.read("demo:30x20x300")
    data = data.take(np.flatnonzero((data.user_rows >= 2) & (data.item_rows >= 2)))
    if not whole:
        noise = np.random.default_rng(5).uniform(-0.4, 0.4, len(data)).astype(np.float32)
        data.ratings[:] += noise
    return data


def dense(data: Interactions) -> NDArray[np.float64]:
    """The ratings as a table, float64 (n_users, n_items); NaN where there is none."""
    table = np.full((len(data.users), len(data.items)), np.nan)
    table[data.user_rows, data.item_rows] = data.ratings
    return table


def every_pair(data: Interactions) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """User and item rows of all pairs, as a table is laid out."""
    users, items = np.mgrid[0 : len(data.users), 0 : len(data.items)].astype(np.int32)
    return users.ravel(), items.ravel()
