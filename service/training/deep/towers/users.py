"""The users of a model with networks, as a replica computes them from their training histories."""

import dataclasses

import numpy as np

from service.models.fold_in.fold_in import fold_in
from service.models.snapshot import ModelSnapshot
from service.training.algorithms.kernels import threads


def with_tower_users(snapshot: ModelSnapshot) -> ModelSnapshot:
    """Return a model whose users with interactions are the ones that its user tower computes, to the last bit.

    The others keep what the model has for them.
    """
    factors, biases = snapshot.user_factors.copy(), snapshot.user_bias.copy()
    with threads.one_blas_thread():
        for row in np.flatnonzero(np.diff(snapshot.history.indptr)).tolist():
            user = fold_in(snapshot, snapshot.user_history(row), row)
            if user is not None:
                factors[row], biases[row] = user.factors, user.constant - snapshot.global_mean
    return dataclasses.replace(snapshot, user_factors=factors, user_bias=biases)
