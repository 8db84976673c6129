"""Loaders of PyTorch over datasets that are fetched by the batch.

Invariant: the batches of an epoch depend on the dataset, the batch size and the generator alone: not on the number of
worker processes, nor on PyTorch's global generator.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

B = TypeVar("B")
# An epoch has at least so many steps, unless they would be smaller than the least batch.
_LEAST_STEPS: Final = 32
_LEAST_BATCH: Final = 256


class ShuffledBatches(Sampler[list[int]]):
    """The indices 0 to n - 1 in random order, in batches; drawn when the iteration begins.

    Args:
        n: How many indices.
        batch_size: Indices a batch.
        generator: The source of the order.
        drop_last: Whether a last, smaller batch is left out, unless it is the only one.
    """

    def __init__(self, n: int, batch_size: int, generator: np.random.Generator, *, drop_last: bool = False) -> None:
        self._n = n
        self._batch_size = batch_size
        self._generator = generator
        self._n_batches = max(n // batch_size, min(n, 1)) if drop_last else -(-n // batch_size)

    def __len__(self) -> int:
        return self._n_batches

    def __iter__(self) -> Iterator[list[int]]:
        order = self._generator.permutation(self._n)
        for number in range(self._n_batches):
            yield order[number * self._batch_size : (number + 1) * self._batch_size].tolist()


def rows_of_step(most: int, n: int) -> int:
    """Return how many of n rows are a step: at most so many, and few enough for some steps an epoch."""
    return min(most, max(_LEAST_BATCH, n // _LEAST_STEPS))


def shuffled_epochs(
    dataset: Dataset[B], batch_size: int, *, drop_last: bool = False, n_workers: int = 0
) -> Callable[[np.random.Generator], Iterable[B]]:
    """Return a function that returns the batches of an epoch, shuffled by the generator that it is given.

    Args:
        dataset: A dataset with a length and `__getitems__`.
        batch_size: Samples a batch.
        drop_last: Whether a last, smaller batch is left out.
        n_workers: Processes that fetch batches; 0 to fetch them in this one, which suits batches of a millisecond.
    """

    def epoch(generator: np.random.Generator) -> Iterable[B]:
        batches = ShuffledBatches(len(dataset), batch_size, generator, drop_last=drop_last)
        return _loader(dataset, batches, n_workers)

    return epoch


def in_order(dataset: Dataset[B], batch_size: int) -> Iterable[B]:
    """Return the batches of a dataset in its order, for validation."""
    n: int = len(dataset)
    return _loader(dataset, [range(start, min(start + batch_size, n)) for start in range(0, n, batch_size)], 0)


def _loader(dataset: Dataset[B], batches: Any, n_workers: int) -> Iterable[B]:
    # A loader draws a seed for its workers. It has a generator of its own, so that dropout draws the same anyway.
    loader: Iterable[B] = DataLoader(
        dataset, batch_sampler=batches, collate_fn=_as_it_is, num_workers=n_workers, generator=torch.Generator()
    )
    return loader


def _as_it_is(batch: B) -> B:
    """Return what the dataset has made: its batches need no collation."""
    return batch
