"""How many cores a training uses.

Invariant: what is computed depends on neither the number of threads nor on which of them came first. Work is cut into
blocks by its size alone, each block writes rows of its own, and linear algebra whose sums a library would share out by
threads runs on one.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from threadpoolctl import threadpool_limits

ALL: Final = 0
_limit: ContextVar[int] = ContextVar("recollect_training_threads", default=ALL)


def count() -> int:
    """Return how many threads to use: all cores that this process may run on, or fewer where `limit` says so."""
    cores = len(os.sched_getaffinity(0))
    return min(cores, _limit.get() or cores)


@contextmanager
def limit(n_threads: int) -> Iterator[None]:
    """Use at most so many threads inside; `ALL`, which is 0, for all cores."""
    token = _limit.set(n_threads)
    try:
        yield
    finally:
        _limit.reset(token)


def in_blocks(work: Callable[[int, int], None], n: int, size: int) -> None:
    """Do `work(start, stop)` for every block of 0 to n, several at a time.

    Args:
        work: Writes what belongs to its block and nothing else; compiled kernels run without holding the interpreter.
        n: How many rows there are.
        size: Rows in a block; the last may be shorter.

    Raises:
        Exception: What `work` raised first, in order of the blocks.
    """
    blocks = [(start, min(start + size, n)) for start in range(0, n, size)]
    n_threads = min(count(), len(blocks))
    if n_threads <= 1:
        for start, stop in blocks:
            work(start, stop)
        return
    with ThreadPoolExecutor(n_threads, thread_name_prefix="training") as pool:
        try:
            for done in [pool.submit(work, start, stop) for start, stop in blocks]:
                done.result()
        except BaseException:
            # Ctrl-C among others: what has not begun is not worth waiting for.
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keep linear algebra inside on one thread: how a library cuts sums into threads changes their last bits."""
    with threadpool_limits(limits=1, user_api="blas"):
        yield
