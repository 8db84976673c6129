"""Compiles the kernels of the default training and of `recollect generate`, so that their first run does not wait.

`make setup` runs it as `python -m ops.kernels`. The machine code is kept as
`service.training.algorithms.kernels.compiled` says.
"""

import numpy as np

from service.generation.bulk_users import BulkUsers
from service.generation.lists.list_model import BulkModel
from service.generation.lists.shard_lists import shard_lists
from service.generation.lists.shard_users import ShardUsers
from service.lists.list_request import ListRequest
from service.training.algorithms.registry import ConfiguredAlgorithm
from service.training.data import datasets
from service.training.evaluation.kernel_compilation import compile_kernels
from service.training.interactions import Interactions, no_progress
from service.training.selection.candidates import CANDIDATES

_DATA = "demo:20x10x60"
# What a candidate tries on dense data alone, which a few ratings are not.
_ON_DENSE_DATA = ("next_item", ("form=factors",))


def main() -> None:
    """Fit each candidate of `auto` to a few ratings, and make lists of a model with factors."""
    data = datasets.read(_DATA)
    for candidate in CANDIDATES:
        compile_kernels(candidate.configured(), data)
    compile_kernels(ConfiguredAlgorithm.parse(*_ON_DENSE_DATA), data)
    few_lists(data)


def few_lists(data: Interactions) -> None:
    """Make a short list of each user."""
    svd = ConfiguredAlgorithm.parse("pure_svd", ("n_factors=2",))
    snapshot = svd.algorithm.fit(data, svd.config, np.random.default_rng(0), no_progress)
    users = BulkUsers.of_model(snapshot)
    model = BulkModel(snapshot, ListRequest(2)).for_workers
    shard_lists(model, ShardUsers.of(snapshot, users.ids, users.rows, {}))


if __name__ == "__main__":
    main()
