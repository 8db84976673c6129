"""The library of the index, faiss, which is an extra: it is imported when an index is built or read, and never before.

Invariant: importing it changes nothing in this process but what the two functions say; a server without it runs.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

MISSING: Final = "The package faiss-cpu is not installed; the extra `ann` of recollect has it."


@cache
def faiss() -> Any | None:
    """Return the library, on one thread; None if it is not installed."""
    try:
        with warnings.catch_warnings():
            # Its generated wrappers use types that Python deprecates.
            warnings.simplefilter("ignore", DeprecationWarning)
            import faiss as library
    except ImportError:
        return None
    # A request has one query, and threads of replicas beside each other only wait for each other.
    library.omp_set_num_threads(1)
    return library


@contextmanager
def all_cores() -> Iterator[None]:
    """Let the library use every core of this process, for a build."""
    library = faiss()
    if library is None:
        yield
        return
    library.omp_set_num_threads(len(os.sched_getaffinity(0)))
    try:
        yield
    finally:
        library.omp_set_num_threads(1)
