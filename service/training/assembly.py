"""Builds the `ModelSnapshot` of any algorithm from its fitted tables and the training data."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
from scipy.sparse import coo_array, csr_array

from service.models.neighbourhood import Neighbourhood
from service.models.snapshot import ModelSnapshot
from service.training.algorithms import hyperparameters
from service.training.interactions import Float32, Interactions
from service.training.popularity_counts import decayed


def assemble(
    data: Interactions,
    algorithm: str,
    config: Any,
    *,
    user_factors: Float32 | None = None,
    item_factors: Float32 | None = None,
    user_bias: Float32 | None = None,
    item_bias: Float32 | None = None,
    global_mean: float = 0.0,
    neighbourhood: Neighbourhood | None = None,
) -> ModelSnapshot:
    """Build the snapshot of a model; missing factors have rank 0, missing biases are zeros.

    Popularity is counted without decay, which the pipeline applies later.

    Args:
        user_factors: Float32 (n_users, k).
        item_factors: Float32 (n_items, k).
        user_bias: Float32 (n_users,).
        item_bias: Float32 (n_items,).
        global_mean: In units of the rating scale.
        neighbourhood: Neighbour weights, instead of factors.
    """
    n_users, n_items = len(data.users), len(data.items)
    return ModelSnapshot(
        algorithm=algorithm,
        settings=hyperparameters.as_json(config),
        users=data.users,
        items=data.items,
        user_factors=np.zeros((n_users, 0), np.float32) if user_factors is None else user_factors,
        item_factors=np.zeros((n_items, 0), np.float32) if item_factors is None else item_factors,
        user_bias=np.zeros(n_users, np.float32) if user_bias is None else user_bias,
        item_bias=np.zeros(n_items, np.float32) if item_bias is None else item_bias,
        global_mean=global_mean,
        rating_min=data.rating_min,
        rating_max=data.rating_max,
        history=history(data),
        popularity=decayed(data, float("inf")),
        data_as_of=latest_time(data),
        neighbourhood=neighbourhood,
    )


def history(data: Interactions) -> csr_array:
    """Return the ratings as float32 CSR (n_users, n_items) with int32 indices, ascending within a row."""
    shape = (len(data.users), len(data.items))
    matrix = coo_array((data.ratings, (data.user_rows, data.item_rows)), shape=shape).tocsr()
    matrix.sort_indices()
    matrix.indices = matrix.indices.astype(np.int32, copy=False)
    return matrix


def latest_time(data: Interactions) -> str:
    """Return the RFC 3339 time of the latest interaction; the current time if the data has no times."""
    if data.timestamps is None or not len(data):
        moment = datetime.now(UTC)
    else:
        moment = datetime.fromtimestamp(int(data.timestamps.max()), UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
