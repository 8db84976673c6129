"""Builds the `ModelSnapshot` of any algorithm from its fitted tables and the training data."""

from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array

from service.models.fold_in.settings import FoldIn
from service.models.history.user_history import PURCHASE, RATING
from service.models.neighbourhood import Neighbourhood
from service.models.networks.networks import Networks
from service.models.snapshot import ModelSnapshot
from service.training import hyperparameters
from service.training.interactions import Float32, Float64, Int32, Int64, Interactions
from service.training.popularity.counts import decayed


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
    input_factors: Float32 | None = None,
    fold_in: FoldIn | None = None,
    fold_in_precision: Float64 | None = None,
    networks: Networks | None = None,
    user_inputs: Float32 | None = None,
    user_attributes: Int32 | None = None,
    learning_curve: tuple[dict[str, Any], ...] = (),
    entries: "HistoryEntries | None" = None,
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
        input_factors: Float32 (n_items, k), the factors of items as inputs of a fold-in; None if `item_factors` are.
            With networks they may have any width.
        fold_in: How the model computes a user from interactions.
        fold_in_precision: Float64 (1, k), (k, k) or (k + 1, k + 1), see `ModelSnapshot`.
        networks: What computes users, new items and ranks, in place of another fold-in.
        user_inputs: Float32 (n_users, d), what training has found for each user as an input of the user tower.
        user_attributes: Int32 (n_users, c), the categories of each user.
        learning_curve: A point per epoch, see `ModelSnapshot`.
        entries: The `history_entries` of the data, if the fit has them: their order by time takes a while.
    """
    entries = history_entries(data) if entries is None else entries
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
        event_values=data.event_values,
        history=entries.history,
        history_ranks=entries.ranks,
        history_times=entries.times_s,
        history_types=entries.types,
        popularity=decayed(data, float("inf")),
        data_as_of=latest_time(data),
        neighbourhood=neighbourhood,
        input_factors=input_factors,
        fold_in=fold_in,
        fold_in_precision=fold_in_precision,
        networks=networks,
        user_inputs=user_inputs,
        user_attributes=user_attributes,
        learning_curve=learning_curve,
    )


class HistoryEntries(NamedTuple):
    """The interactions by user and item, with their order; arrays have an element for each entry of `history`.

    Attributes:
        history: Float32 CSR (n_users, n_items), the ratings.
        ranks: Int32, the place of an entry in its user's order of time, 0 for the oldest.
        times_s: Int64, Unix seconds; None if the data has no times.
        types: Uint8, indices in `EVENT_TYPES`; None if all are ratings.
    """

    history: csr_array
    ranks: Int32
    times_s: Int64 | None
    types: NDArray[np.uint8] | None


def history(data: Interactions) -> csr_array:
    """Return the ratings as float32 CSR (n_users, n_items) with int32 indices, ascending within a row."""
    matrix, positions = _by_user(data)
    matrix.data = data.ratings[positions]
    return matrix


def history_entries(data: Interactions) -> HistoryEntries:
    """Return the interactions by user and item, with their order."""
    matrix, positions = _by_user(data)
    ranks = time_ranks(data)[positions]
    times_s = None if data.timestamps is None else data.timestamps[positions]
    all_rated = data.types is None and isinstance(data.rated, bool) and data.rated
    types = None if all_rated else event_types(data)[positions]
    matrix.data = data.ratings[positions]
    return HistoryEntries(matrix, ranks, times_s, types)


def event_types(data: Interactions) -> NDArray[np.uint8]:
    """Return the type of each interaction, an index in `EVENT_TYPES`: uint8 (n,)."""
    if data.types is not None:
        return data.types
    plain = np.where(data.rated, np.uint8(RATING), np.uint8(PURCHASE))
    return np.array(np.broadcast_to(plain, (len(data),)))


def time_ranks(data: Interactions) -> Int32:
    """Return the place of each interaction in its user's order of time, 0 for the oldest: int32 (n,).

    Of equal times the later position is the later interaction; without times the order is that of the source.
    """
    order = np.arange(len(data)) if data.timestamps is None else np.argsort(data.timestamps, kind="stable")
    # A conversion to CSR keeps the order within a row, in time proportional to the entries.
    shape = (len(data.users), len(data))
    by_user = coo_array((order, (data.user_rows[order], np.arange(len(data)))), shape=shape).tocsr()
    ranks = np.empty(len(data), dtype=np.int32)
    lengths = np.diff(by_user.indptr)
    ranks[by_user.data] = np.arange(len(data)) - np.repeat(by_user.indptr[:-1], lengths)
    return ranks


def _by_user(data: Interactions) -> tuple[csr_array, Int64]:
    """Return the interactions as CSR (n_users, n_items) without values, and the position of each entry in the data."""
    shape = (len(data.users), len(data.items))
    matrix = coo_array((np.arange(len(data)), (data.user_rows, data.item_rows)), shape=shape).tocsr()
    matrix.sort_indices()
    matrix.indices = matrix.indices.astype(np.int32, copy=False)
    return matrix, matrix.data


def latest_time(data: Interactions) -> str:
    """Return the RFC 3339 time of the latest interaction; the current time if the data has no times."""
    if data.timestamps is None or not len(data):
        moment = datetime.now(UTC)
    else:
        moment = datetime.fromtimestamp(int(data.timestamps.max()), UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
