"""The part of each batch that a process computes, and where it is within the whole batch."""

from typing import NamedTuple

import numpy as np

from service.training.interactions import Int64


class Rows(NamedTuple):
    """Consecutive rows of a batch.

    Attributes:
        start: The first one.
        stop: After the last one.
        n: The rows of the whole batch.
        n_copies: How many processes compute each of them: 1, or all, of a batch with fewer rows than processes.
    """

    start: int
    stop: int
    n: int
    n_copies: int = 1

    @property
    def size(self) -> int:
        """How many rows these are."""
        return self.stop - self.start

    @property
    def n_terms(self) -> int:
        """How many rows all processes compute together."""
        return self.n * self.n_copies

    @property
    def are_all(self) -> bool:
        """Whether these are all rows of the batch."""
        return self.size == self.n

    @property
    def places(self) -> slice:
        """Where they are within the batch."""
        return slice(self.start, self.stop)


class Share(NamedTuple):
    """The part of one of some processes, which have all rows of a batch together, each row once.

    If there are fewer rows than processes, each of them has all.

    Attributes:
        rank: The place of the process among them, from 0.
        size: How many processes there are.
    """

    rank: int = 0
    size: int = 1

    def rows(self, n: int) -> Rows:
        """Return the own ones of n rows, in parts of nearly one size."""
        if n < self.size:
            return Rows(0, n, n, self.size)
        return Rows(self.rank * n // self.size, (self.rank + 1) * n // self.size, n)

    def rows_by_work(self, work: Int64) -> Rows:
        """Return the own ones of n rows, in parts of nearly the same work, given the work of each: int64 (n,)."""
        done = np.cumsum(work)
        wanted = np.arange(1, self.size) * (float(done[-1]) / self.size) if done.size else np.zeros(0)
        cuts = np.concatenate([[0], np.searchsorted(done, wanted, side="left") + 1, [work.size]])
        if np.any(np.diff(cuts) <= 0):
            return self.rows(work.size)
        return Rows(int(cuts[self.rank]), int(cuts[self.rank + 1]), work.size)


ALONE = Share()
