"""Similarities of the candidates of a list to each other, from whatever the model knows of items.

Invariant: a similarity does not depend on BLAS, so that a list that was chosen by similarities can be computed again.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from service.lists.diversity import Similarities
from service.models.snapshot import ModelSnapshot


def similarities_among(snapshot: ModelSnapshot, rows: NDArray[np.int64]) -> Similarities:
    """Return the cosines among items: of their factors, or of their rows of neighbour weights.

    A model that has neither, such as popularity, has no similar items.

    Args:
        snapshot: The model.
        rows: Int64 (m,), the items; the result takes and gives indices in it.
    """
    if snapshot.n_factors:
        vectors = snapshot.item_factors.take(rows, axis=0).astype(np.float64)
        vectors /= snapshot.item_norms.take(rows)[:, np.newaxis]

        def of_factors(index: int) -> NDArray[np.float64]:
            cosines: NDArray[np.float64] = np.add.reduce(vectors * vectors[index], axis=1)
            return cosines

        return of_factors
    if snapshot.neighbourhood is None or snapshot.neighbourhood.over == "users":
        return lambda _: np.zeros(rows.size)
    neighbours = _unit_rows(snapshot.neighbourhood.weights, rows)

    def of_neighbours(index: int) -> NDArray[np.float64]:
        own = slice(neighbours.indptr[index], neighbours.indptr[index + 1])
        vector = np.zeros(neighbours.shape[1])
        vector[neighbours.indices[own]] = neighbours.data[own]
        cosines: NDArray[np.float64] = neighbours @ vector
        return cosines

    return of_neighbours


def _unit_rows(weights: csr_array, rows: NDArray[np.int64]) -> csr_array:
    """Return rows of a matrix, each with the diagonal entry 1 added, scaled to length 1, over their columns alone.

    The diagonal makes an item similar to its neighbours, besides the items that share them.
    """
    part = weights[rows].astype(np.float64)
    largest = np.maximum.reduceat(np.append(np.abs(part.data), 0.0), part.indptr[:-1])
    largest[np.diff(part.indptr) == 0] = 1.0
    own = csr_array((largest, (np.arange(rows.size), rows)), shape=part.shape)
    part = csr_array(part + own)
    columns, indices = np.unique(part.indices, return_inverse=True)
    lengths = np.sqrt(np.add.reduceat(part.data**2, part.indptr[:-1]))
    data = part.data / np.repeat(lengths, np.diff(part.indptr))
    return csr_array((data, indices, part.indptr), shape=(rows.size, columns.size))
