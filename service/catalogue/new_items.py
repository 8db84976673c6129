"""Rows of items that a model was not trained on, from their attributes and the first users who like them.

In a model with factors an item gets the factors that its attributes let expect: those of the item tower, if the model
has one, and else of a regression (`attribute_regression.py`); if the model ranks, the users who like it refine them
(`rater_evidence.py`). In a model with neighbour weights over items it
gets the mean of the weights of the items that its attributes, and those who like it, are nearest to. An item without
any attribute that others have, too, gets no factors and no weights: nothing is known of it. Pure.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, hstack, vstack

from service.catalogue.attribute_features import AttributeFeatures
from service.catalogue.attribute_regression import AttributeRegression, reliability
from service.catalogue.column import Column
from service.catalogue.extended_snapshot import NewRows
from service.catalogue.rater_evidence import RaterFactors, co_liked, growth
from service.models.items.record import AttributeValue
from service.models.snapshot import ModelSnapshot

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Likers = Mapping[int, Int64]
"""By number of a new item: the user rows of those who like it, int64, not empty."""

# Items by whose weights a new item's are averaged.
_NEAREST: Final = 20
# How many users say as much as the attributes, in a model with neighbours.
_ATTRIBUTES_AS_USERS: Final = 5.0
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
        self._counts = np.bincount(model.history.indices, minlength=n).astype(np.float64)
        self._regression: AttributeRegression | None = None
        if model.n_factors and len(self._features):
            targets = [model.item_factors, model.item_bias[:, np.newaxis]]
            if model.input_factors is not None:
                targets.append(model.input_factors)
            # Items without attributes say nothing of attributes.
            weights = reliability(self._counts) * (np.diff(self._known.indptr) > 0)
            if weights.sum() > 0:
                self._regression = AttributeRegression(self._known, np.concatenate(targets, axis=1), weights)

    def rows(
        self,
        ids: Sequence[str],
        columns: Mapping[str, Column],
        likers: Likers,
        attributes: Sequence[Mapping[str, AttributeValue]] = (),
    ) -> NewRows:
        """Return the rows of new items, which follow the model's items in the columns.

        Args:
            ids: The new items.
            columns: The attributes of all items.
            likers: The users who like each new item.
            attributes: Those of each new item, as an item tower reads them.
        """
        model, n_new, k = self._model, len(ids), self._model.n_factors
        features = self._features.matrix(columns, self._n, self._n + n_new)
        predicted = np.zeros((n_new, self._width))
        if self._regression is not None:
            found = self._regression.predict(features)
            found[np.diff(features.indptr) == 0] = 0
            predicted[:, : found.shape[1]] = found
        self._compute_by_tower(predicted, attributes)
        item_factors, inputs = predicted[:, :k], predicted[:, k + 1 :]
        # Biases and products of factors are parts of a rating, of which who likes an item says little.
        if likers and k and not model.has_item_bias:
            for number, user_rows in likers.items():
                item_factors[number] = self._item_raters.refined(item_factors[number], user_rows)
                if model.input_factors is not None:
                    inputs[number] = self._input_raters.refined(inputs[number], user_rows)
        popularity = np.zeros(n_new, dtype=np.float32)
        for number, user_rows in likers.items():
            popularity[number] = user_rows.size
        return NewRows(
            ids,
            item_factors.astype(np.float32),
            predicted[:, k].astype(np.float32),
            popularity,
            None if model.input_factors is None else inputs.astype(np.float32),
            self._weights(features, likers),
        )

    def _compute_by_tower(self, predicted: Float64, attributes: Sequence[Mapping[str, AttributeValue]]) -> None:
        """Replace the factors and biases of items with a known category by those of the item tower, if there is one."""
        networks = self._model.networks
        if networks is None or networks.item_tower is None or networks.features is None or not attributes:
            return
        k, features = self._model.n_factors, networks.features.item_features(attributes)
        has_category = np.add.reduceat(features.ids > 0, features.indptr[:-1]) > 0
        factors, biases = networks.item_tower.items(features)
        predicted[has_category, :k], predicted[has_category, k] = factors[has_category], biases[has_category]

    @property
    def _width(self) -> int:
        """The numbers of an item: its factors, its bias, its factors as an input."""
        inputs = self._model.input_factors
        return self._model.n_factors + 1 + (0 if inputs is None else inputs.shape[1])

    @cached_property
    def _item_raters(self) -> RaterFactors:
        return RaterFactors(self._model, self._model.item_factors, self._expected[:, : self._model.n_factors])

    @cached_property
    def _input_raters(self) -> RaterFactors:
        inputs = self._model.item_factors if self._model.input_factors is None else self._model.input_factors
        return RaterFactors(self._model, inputs, self._expected[:, self._model.n_factors + 1 :])

    @property
    def _expected(self) -> Float64:
        """What the attributes of the model's own items let expect: float64 (n_items, `_width`)."""
        return np.zeros((self._n, self._width)) if self._regression is None else self._regression.predict(self._known)

    def _weights(self, features: csr_array, likers: Likers) -> csr_array | None:
        """Return the neighbour weights of all items, with those of the new ones."""
        neighbourhood = self._model.neighbourhood
        if neighbourhood is None or neighbourhood.over != "items" or neighbourhood.weights.nnz > _MAX_WEIGHTS:
            return None
        weights = neighbourhood.weights
        means = self._with_likers(self._nearest(features), likers)
        columns = csr_array(weights @ means.T)
        rows = csr_array(means @ weights)
        corner = csr_array((means.shape[0], means.shape[0]))
        extended: csr_array = vstack([hstack([weights, columns]), hstack([rows, corner])]).tocsr().astype(np.float32)
        extended.sort_indices()
        extended.indices = extended.indices.astype(np.int32, copy=False)
        return extended

    def _with_likers(self, means: csr_array, likers: Likers) -> csr_array:
        """Return the shares of known items in new ones with what those who like the new ones like, too."""
        if not likers:
            return means
        c, total = _ATTRIBUTES_AS_USERS, self._column_sums
        blended = means.tolil()
        for number, user_rows in likers.items():
            items, shares = co_liked(self._model, user_rows, _NEAREST)
            n, own = user_rows.size, means[[number]]
            # The weights that the attributes let expect, and more with each user, as in `rater_evidence`.
            expected, found = float((own @ total)[0]), float(shares @ total[items])
            size = growth(n, c) * (expected / found if expected > 0 and found > 0 else 1.0)
            row = np.zeros(self._n)
            row[items] = n * size * shares
            blended[number] = (c * own.toarray()[0] + row) / (c + n)
        return csr_array(blended)

    @cached_property
    def _column_sums(self) -> Float64:
        """The sum of the absolute weights that lead to each item, float64 (n_items,)."""
        neighbourhood = self._model.neighbourhood
        if neighbourhood is None:
            return np.zeros(self._n)
        weights = neighbourhood.weights
        return np.bincount(weights.indices, np.abs(weights.data), self._n).astype(np.float64)

    def _nearest(self, features: csr_array) -> csr_array:
        """Return the share of each known item in each new one: CSR (m, n_items), rows that sum to 1 or are empty."""
        m = features.shape[0]
        known = _unit_rows(self._known)
        new = _unit_rows(features)
        block = max(1, _SIMILARITIES // max(1, self._n))
        rows, items, shares = [], [], []
        for start in range(0, m, block):
            cosines = (new[start : start + block] @ known.T).toarray()
            for offset, row in enumerate(cosines):
                # Of equally near items the ones with the most interactions: their weights are the surest.
                near = np.lexsort((-self._counts, -row))[:_NEAREST]
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
