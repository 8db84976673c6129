"""Rows of items that a model was not trained on, from their attributes.

In a model with factors an item gets the factors that its attributes let expect (`attribute_regression.py`). In a model
with neighbour weights over items it gets the mean of the weights of the items that its attributes are nearest to. An
item without any attribute that others have, too, gets no factors and no weights: nothing is known of it. Pure.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, hstack, vstack

from service.catalogue.attribute_features import AttributeFeatures
from service.catalogue.attribute_regression import AttributeRegression
from service.catalogue.column import Column
from service.catalogue.extended_snapshot import NewRows
from service.models.snapshot import ModelSnapshot

Float64 = NDArray[np.float64]

# The weight of an item with c interactions in the regression is c / (c + this): factors of rare items are noisy.
_HALF_WEIGHT: Final = 10.0
# Items by whose weights a new item's are averaged.
_NEAREST: Final = 20
# A model with more neighbour weights gives new items none: adding them copies all weights.
_MAX_WEIGHTS: Final = 30_000_000
_SIMILARITIES: Final = 1 << 22


class NewItemModel:
    """What a model's own items say of new ones.

    Args:
        model: The model.
        columns: The attributes of its items, and perhaps of items behind them.
    """

    def __init__(self, model: ModelSnapshot, columns: Mapping[str, Column]) -> None:
        self._model = model
        self._n = n = len(model.items)
        self._features: Final = AttributeFeatures(columns, n)
        self._known: Final = self._features.matrix(columns, 0, n)
        self._regression: AttributeRegression | None = None
        if model.n_factors and len(self._features):
            counts = np.bincount(model.history.indices, minlength=n).astype(np.float64)
            targets = [model.item_factors, model.item_bias[:, np.newaxis]]
            if model.input_factors is not None:
                targets.append(model.input_factors)
            # Items without attributes say nothing of attributes.
            weights = counts / (counts + _HALF_WEIGHT) * (np.diff(self._known.indptr) > 0)
            if weights.sum() > 0:
                self._regression = AttributeRegression(self._known, np.concatenate(targets, axis=1), weights)

    def rows(self, ids: Sequence[str], columns: Mapping[str, Column]) -> NewRows:
        """Return the rows of new items, which follow the model's items in the columns."""
        model, n_new, k = self._model, len(ids), self._model.n_factors
        features = self._features.matrix(columns, self._n, self._n + n_new)
        has_attributes = np.diff(features.indptr) > 0
        predicted = np.zeros((n_new, 2 * k + 1))
        if self._regression is not None:
            found = self._regression.predict(features)
            predicted[:, : found.shape[1]] = found
            predicted[~has_attributes] = 0
        return NewRows(
            ids,
            predicted[:, :k].astype(np.float32),
            predicted[:, k].astype(np.float32),
            np.zeros(n_new, dtype=np.float32),
            None if model.input_factors is None else predicted[:, k + 1 :].astype(np.float32),
            self._weights(features),
        )

    def _weights(self, features: csr_array) -> csr_array | None:
        """Return the neighbour weights of all items, with those of the new ones."""
        neighbourhood = self._model.neighbourhood
        if neighbourhood is None or neighbourhood.over != "items" or neighbourhood.weights.nnz > _MAX_WEIGHTS:
            return None
        weights = neighbourhood.weights
        means = self._nearest(features)
        columns = csr_array(weights @ means.T)
        rows = csr_array(means @ weights)
        corner = csr_array((means.shape[0], means.shape[0]))
        extended: csr_array = vstack([hstack([weights, columns]), hstack([rows, corner])]).tocsr().astype(np.float32)
        extended.sort_indices()
        extended.indices = extended.indices.astype(np.int32, copy=False)
        return extended

    def _nearest(self, features: csr_array) -> csr_array:
        """Return the share of each known item in each new one: CSR (m, n_items), rows that sum to 1 or are empty."""
        m = features.shape[0]
        counts = np.bincount(self._model.history.indices, minlength=self._n)
        known = _unit_rows(self._known)
        new = _unit_rows(features)
        block = max(1, _SIMILARITIES // max(1, self._n))
        rows, items, shares = [], [], []
        for start in range(0, m, block):
            cosines = (new[start : start + block] @ known.T).toarray()
            for offset, row in enumerate(cosines):
                # Of equally near items the ones with the most interactions: their weights are the surest.
                near = np.lexsort((-counts, -row))[:_NEAREST]
                near = near[row[near] > 0]
                if near.size:
                    rows.append(np.full(near.size, start + offset))
                    items.append(near)
                    shares.append(row[near] / row[near].sum())
        if not rows:
            return csr_array((m, self._n))
        cells = (np.concatenate(shares), (np.concatenate(rows), np.concatenate(items)))
        return csr_array(cells, shape=(m, self._n))


def _unit_rows(matrix: csr_array) -> csr_array:
    lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    return csr_array(matrix.multiply((1 / np.maximum(lengths, 1e-12))[:, np.newaxis]))
