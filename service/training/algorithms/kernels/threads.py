"""The threads of a training.

Invariant: results depend neither on the number of threads nor on their timing. Work is cut into blocks by its size
alone, each block writes its own rows, and linear algebra whose sums a library would split by threads runs on one.
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
    """Return the number of threads to use: the cores available to this process, at most `limit`."""
    cores = len(os.sched_getaffinity(0))
    return min(cores, _limit.get() or cores)


@contextmanager
def limit(n_threads: int) -> Iterator[None]:
    """Use at most n threads inside; `ALL` for all cores."""
    token = _limit.set(n_threads)
    try:
        yield
    finally:
        _limit.reset(token)


def run_in_blocks(work: Callable[[int, int], None], n: int, size: int) -> None:
    """Run `work(start, stop)` for every block of 0 to n, in parallel.

    Args:
        work: Writes the rows of its block alone; compiled kernels release the interpreter lock.
        size: Rows per block; the last block may be shorter.

    Raises:
        Exception: The error of the first block, in order of blocks, whose `work` failed.
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
            # Do not wait for blocks that have not started, above all after Ctrl-C.
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Run linear algebra on one thread, because splitting sums by threads changes their last bits."""
    with threadpool_limits(limits=1, user_api="blas"):
        yield
