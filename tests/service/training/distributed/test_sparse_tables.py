"""Workers that multiply parts of a matrix find the singular vectors that one process finds, to the last bit."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from service.executors.executor import using
from service.executors.local_executor import LocalExecutor
from service.models.snapshot import ModelSnapshot
from service.training.algorithms import pure_svd
from service.training.algorithms.kernels.sparse.products import times_table, times_table_in_parts
from service.training.algorithms.kernels.sparse.row_parts import summed_rows
from service.training.algorithms.kernels.sparse.rows import sparse_rows
from service.training.algorithms.pure_svd import PureSvdConfig
from service.training.data import datasets
from service.training.distributed.sparse_tables import DistributedProducts, leading_vectors
from service.training.interactions import Interactions, no_progress
from tests.support.watched_workers import WatchedWorkers


def sparse(n: int, m: int, nnz: int) -> csr_array:
    rng = np.random.default_rng(0)
    rows, columns = rng.integers(0, n, nnz), (m * rng.random(nnz) ** 3).astype(np.int64)
    matrix = csr_array((rng.standard_normal(nnz).astype(np.float32), (rows, columns)), shape=(n, m))
    matrix.sum_duplicates()
    matrix.indices = matrix.indices.astype(np.int32)
    return matrix


@pytest.mark.parametrize("part", [64, 1000, 5000])
def test_a_product_in_parts_is_the_sum_of_the_products_of_parts(part: int) -> None:
    """To the last bit, also of rows that some parts leave empty."""
    matrix = sparse(300, 2000, 4000)
    table = np.random.default_rng(1).standard_normal((2000, 6), dtype=np.float32)
    expected = np.zeros((300, 6), dtype=np.float32)
    for start in range(0, 2000, part):
        columns = csr_array(matrix[:, start : start + part])
        columns.indices = columns.indices.astype(np.int32)
        expected += times_table(sparse_rows(columns), table[start : start + part])
    assert times_table_in_parts(sparse_rows(matrix), table, part).tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("n", "m"),
    [
        pytest.param(40_000, 3_000, id="three sums over users"),
        pytest.param(300, 20_000, id="more items than users"),
        pytest.param(5, 3, id="less than a block"),
    ],
)
def test_workers_find_the_same_vectors(workers: LocalExecutor, n: int, m: int) -> None:
    """With parts of users and of items, one for all and many."""
    matrix = sparse(n, m, 60_000)
    expected = leading_vectors(matrix, 6, np.random.default_rng(3), no_progress)
    with using(workers):
        found = leading_vectors(matrix, 6, np.random.default_rng(3), no_progress)
    assert found.values.tobytes() == expected.values.tobytes()
    assert found.vectors.tobytes() == expected.vectors.tobytes()


def test_no_task_reads_all_users(workers: LocalExecutor) -> None:
    """Of many users, neither the matrix nor a table of theirs is whole anywhere."""
    matrix = sparse(40_000, 300, 60_000)
    products = DistributedProducts(workers, matrix)
    try:
        table = products.random(4, np.random.default_rng(0))
        largest = max(workers.get(part).shape[0] for part in table.parts)
        widest = max(int(workers.get(columns).indices.max()) for columns in products._columns)
        assert max(largest, widest) < summed_rows(40_000) < 40_000
        assert sum(workers.get(part).shape[0] for part in table.parts) == 40_000
        products.give_up(table)
    finally:
        products.close()


def fitted(data: Interactions) -> ModelSnapshot:
    return pure_svd.fit(data, PureSvdConfig(n_factors=5), np.random.default_rng(7), no_progress)


def test_a_killed_worker_changes_no_byte(workers: LocalExecutor, watched: WatchedWorkers) -> None:
    """Whether it multiplies, adds up a Gramian or sums users; all values are given up in the end."""
    data = datasets.read("demo:5000x900x30000")
    expected = fitted(data)
    watched.events.clear()
    watched.kill_when(lambda event: (event.stage, event.task) == ("products", 1))
    watched.kill_when(lambda event: (event.stage, event.task) == ("Gramians", 1))
    watched.kill_when(lambda event: (event.stage, event.task) == ("users", 1))
    before = set(workers._folder.iterdir())
    with using(workers):
        found = fitted(data)
    assert {event.stage for event in watched.deaths()} >= {"products", "Gramians", "users"}
    assert found.user_factors.tobytes() == expected.user_factors.tobytes()
    assert found.item_factors.tobytes() == expected.item_factors.tobytes()
    assert found.input_factors is not None
    assert expected.input_factors is not None
    assert found.input_factors.tobytes() == expected.input_factors.tobytes()
    assert set(workers._folder.iterdir()) == before
