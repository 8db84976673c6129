"""The randomised decomposition finds the largest singular values and their vectors."""

import numpy as np
import pytest
from scipy.sparse import csr_array, random_array

from service.training.algorithms.kernels.sparse.products import times_table
from service.training.algorithms.kernels.sparse.randomised_svd import (
    ThreadedProducts,
    orthonormal,
    right_singular_vectors,
)
from service.training.algorithms.kernels.sparse.rows import sparse_rows
from service.training.interactions import no_progress


def sparse(n: int, m: int, density: float, seed: int = 0) -> csr_array:
    matrix = random_array((n, m), density=density, rng=np.random.default_rng(seed), dtype=np.float32).tocsr()
    matrix.sort_indices()
    matrix.indices = matrix.indices.astype(np.int32)
    return csr_array(matrix)


@pytest.mark.parametrize(("n", "m"), [(700, 300), (300, 700), (50, 20), (1, 9), (9, 1)])
def test_values_are_those_of_the_exact_decomposition(n: int, m: int) -> None:
    """To rounding where the table spans the whole space; within a twentieth for noise, whose values are close."""
    matrix = sparse(n, m, 0.2)
    found = right_singular_vectors(ThreadedProducts(matrix), 20, np.random.default_rng(1), no_progress)
    exact = np.linalg.svd(matrix.toarray().astype(np.float64), compute_uv=False)
    exact = exact[exact > 1e-5 * exact.max(initial=1e-9)][:20]
    np.testing.assert_allclose(found.values, exact, rtol=1e-5 if min(n, m) <= 36 else 5e-2)
    assert found.vectors.shape == (m, exact.size)
    assert found.vectors.dtype == np.float32
    np.testing.assert_allclose(found.vectors.T @ found.vectors, np.eye(exact.size), atol=1e-4)


def test_separated_values_give_the_exact_vectors() -> None:
    """A decaying spectrum, as of interactions: the space that the vectors span is the exact one."""
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.standard_normal((n, 60)))[0] for n in (500, 400))
    matrix = csr_array(((left * 0.8 ** np.arange(60)) @ right.T).astype(np.float32))
    matrix.indices = matrix.indices.astype(np.int32)
    found = right_singular_vectors(ThreadedProducts(matrix), 10, rng, no_progress)
    np.testing.assert_allclose(found.values, 0.8 ** np.arange(10), rtol=1e-4)
    np.testing.assert_allclose(np.abs(np.sum(found.vectors * right[:, :10], axis=0)), 1, atol=1e-3)


def test_dependent_columns_are_left_out() -> None:
    """A table of rank 3 has 3 orthonormal columns."""
    rng = np.random.default_rng(0)
    table = (rng.standard_normal((200, 3)) @ rng.standard_normal((3, 8))).astype(np.float32)
    columns = orthonormal(ThreadedProducts(sparse(2, 2, 1.0)), table)
    assert columns.shape == (200, 3)
    np.testing.assert_allclose(columns.T @ columns, np.eye(3), atol=1e-5)


def test_a_product_with_a_table() -> None:
    """Empty rows are 0."""
    matrix = sparse(700, 90, 0.02)
    table = np.random.default_rng(0).standard_normal((90, 5)).astype(np.float32)
    product = times_table(sparse_rows(matrix), table)
    np.testing.assert_allclose(product, matrix.toarray() @ table, atol=1e-5)
    assert not product[np.diff(matrix.indptr) == 0].any()


def test_progress_ends_at_its_total() -> None:
    """One step for the first table, one for each power iteration, one for the vectors."""
    steps: list[tuple[str, int, int]] = []
    right_singular_vectors(
        ThreadedProducts(sparse(60, 40, 0.2)), 3, np.random.default_rng(0), lambda *step: steps.append(step)
    )
    assert steps == [("fit", step, 5) for step in range(6)]
