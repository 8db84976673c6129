"""A model with rows for items that it was not trained on.

Invariants: rows of the model keep their numbers and values, and users are the same, so that a list without new items is
what it was. The new factors are no longer than the longest of the model, nor the biases larger than its largest: what
was computed of the model's users stays valid and is not computed again. Pure.
"""

import copy
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from service.models.items.records import ItemRecords
from service.models.neighbourhood import Neighbourhood
from service.models.snapshot import ModelSnapshot
from service.models.vocabulary import Vocabulary

Float32 = NDArray[np.float32]

# Properties of users, which new items do not change.
_OF_USERS: Final = ("user_constants", "has_user_factors", "max_exact_over_approx")


class NewRows(NamedTuple):
    """The tables of new items.

    Attributes:
        ids: The m items.
        item_factors: Float32 (m, k).
        item_bias: Float32 (m,).
        popularity: Float32 (m,).
        input_factors: Float32 (m, d), as wide as the model's; None if it has none.
        weights: Neighbour weights of a neighbourhood over items, float32 CSR (n_items + m, n_items + m), the model's
            own among them; None if the model has none.
    """

    ids: Sequence[str]
    item_factors: Float32
    item_bias: Float32
    popularity: Float32
    input_factors: Float32 | None = None
    weights: csr_array | None = None


def extended(model: ModelSnapshot, new: NewRows) -> ModelSnapshot:
    """Return the model with the new rows behind its own."""
    if not new.ids:
        return model
    n_items = len(model.items) + len(new.ids)
    fields: dict[str, Any] = {
        "items": Vocabulary([*model.items.id_of, *new.ids]),
        "item_factors": np.concatenate([model.item_factors, _no_longer_than(model.item_factors, new.item_factors)]),
        "item_bias": np.concatenate([model.item_bias, _within(model.item_bias, new.item_bias)]),
        "popularity": np.concatenate([model.popularity, np.maximum(new.popularity, 0)]),
        "history": _wider(model.history, n_items),
    }
    if model.input_factors is not None and new.input_factors is not None:
        fields["input_factors"] = np.concatenate(
            [model.input_factors, _no_longer_than(model.input_factors, new.input_factors)]
        )
    if model.item_records is not None:
        offsets = model.item_records.offsets
        fields["item_records"] = ItemRecords(
            model.item_records.content, np.concatenate([offsets, np.repeat(offsets[-1:], len(new.ids))])
        )
    neighbourhood = model.neighbourhood
    if neighbourhood is not None and neighbourhood.over == "items":
        weights = _wider(neighbourhood.weights, n_items, n_items) if new.weights is None else new.weights
        fields["neighbourhood"] = Neighbourhood("items", neighbourhood.combine, neighbourhood.signal, weights)
    # A copy without the checks of a new snapshot, which read all users: the model was checked, and the new rows are
    # within its range.
    snapshot = copy.copy(model)
    kept: dict[str, Any] = {name: vars(model)[name] for name in _OF_USERS if name in vars(model)}
    if "seen_by" in vars(model):
        kept["seen_by"] = _wider(model.seen_by, len(model.users), n_items)
    names = set(model.__dataclass_fields__)
    for name in [name for name in vars(snapshot) if name not in names]:
        del vars(snapshot)[name]
    vars(snapshot).update(fields | kept)
    return snapshot


def _wider(matrix: csr_array, n_columns: int, n_rows: int | None = None) -> csr_array:
    """Return a matrix with empty columns, and rows, behind its own, without a copy of its entries."""
    indptr = matrix.indptr
    if n_rows is not None and n_rows > matrix.shape[0]:
        indptr = np.concatenate([indptr, np.repeat(indptr[-1:], n_rows - matrix.shape[0])])
    shape = (indptr.size - 1, n_columns)
    return csr_array((matrix.data, matrix.indices, indptr), shape=shape, copy=False)


def _no_longer_than(known: Float32, new: Float32) -> Float32:
    """Return the new vectors, float32 (m, k), shortened to the length of the longest known one."""
    if not new.size:
        return new.astype(np.float32)
    longest = float(np.sqrt(np.einsum("ij,ij->i", known, known)).max(initial=0.0))
    lengths = np.sqrt(np.einsum("ij,ij->i", new, new))
    scale = np.minimum(1.0, longest * 0.999 / np.maximum(lengths, 1e-30))
    shortened: Float32 = np.nan_to_num(new * scale[:, np.newaxis]).astype(np.float32)
    return shortened


def _within(known: Float32, new: Float32) -> Float32:
    largest = float(np.abs(known).max(initial=0.0))
    within: Float32 = np.nan_to_num(np.clip(new, -largest, largest)).astype(np.float32)
    return within
