"""Cosines among candidates, for models with factors, with neighbours and with neither."""

import dataclasses
from collections.abc import Callable

import numpy as np
from scipy.sparse import csr_array

from service.lists.item_similarity import similarities_among
from service.models.neighbourhood import Neighbourhood
from service.models.snapshot import ModelSnapshot

Make = Callable[..., ModelSnapshot]
ROWS = np.array([7, 2, 30])


def test_items_of_a_factor_model_are_compared_by_their_factors(make_snapshot: Make) -> None:
    snapshot = make_snapshot(n_items=50)
    vectors = snapshot.item_factors[ROWS].astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    similarities = similarities_among(snapshot, ROWS)
    for index in range(3):
        np.testing.assert_allclose(similarities(index), vectors @ vectors[index], atol=1e-6)


def test_items_of_a_neighbour_model_are_compared_by_their_neighbours(make_snapshot: Make) -> None:
    """An item with the same neighbours is similar, and one without any is not."""
    made = make_snapshot(n_items=50)
    weights = np.zeros((50, 50), np.float32)
    weights[7, [1, 3]] = weights[2, [1, 3]] = [0.5, 0.2]
    sparse = csr_array(weights)
    sparse.indices = sparse.indices.astype(np.int32)
    snapshot = dataclasses.replace(
        made,
        user_factors=made.user_factors[:, :0],
        item_factors=made.item_factors[:, :0],
        neighbourhood=Neighbourhood("items", "sum", "seen", sparse),
    )
    similarities = similarities_among(snapshot, ROWS)
    shared = 0.29 / (0.29 + 0.25)
    np.testing.assert_allclose(similarities(0), [1.0, shared, 0.0], atol=1e-6)
    np.testing.assert_allclose(similarities(2), [0.0, 0.0, 1.0], atol=1e-6)


def test_a_model_that_knows_nothing_of_items_has_no_similar_ones(make_snapshot: Make) -> None:
    made = make_snapshot(n_items=50)
    snapshot = dataclasses.replace(made, user_factors=made.user_factors[:, :0], item_factors=made.item_factors[:, :0])
    assert similarities_among(snapshot, ROWS)(1).tolist() == [0.0, 0.0, 0.0]
