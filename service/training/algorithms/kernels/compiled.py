"""Compiles the inner loops of algorithms, once per machine where that can be kept, else once per run.

Invariant: processes that compile at once take turns with what is kept. numba names the next file of machine code after
what its index holds, and writes the index first: two processes with two signatures of a function could give both the
same file, and one of them would then run the other's code.
"""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from numba import njit

Kernel = TypeVar("Kernel", bound=Callable[..., object])


def compiled(function: Kernel) -> Kernel:
    """Compile a function of arrays and numbers when it is first called; it runs without holding the interpreter.

    What is compiled is kept next to the source, or where that is not writable in the user's own cache. Where neither
    is, as in a read-only container, nothing is kept, and every run compiles for a second or two.
    """
    kernel: Any
    try:
        kernel = njit(cache=True, nogil=True)(function)
    except RuntimeError:  # numba's "cannot cache function: no locator available"
        kernel = njit(nogil=True)(function)
    else:
        _take_turns(kernel)
    result: Kernel = kernel
    return result


def _take_turns(kernel: Any) -> None:
    """Hold a lock on the folder while numba writes what is kept, and a shared one while it reads it."""
    kept, folder = kernel._cache._cache_file, kernel._cache.cache_path  # noqa: SLF001  # numba has no hook for this
    save, load = kept.save, kept.load

    def save_alone(key: object, data: object) -> None:
        with _turn(folder, fcntl.LOCK_EX):
            save(key, data)

    def load_undisturbed(key: object) -> object:
        with _turn(folder, fcntl.LOCK_SH):
            return load(key)

    kept.save, kept.load = save_alone, load_undisturbed


@contextlib.contextmanager
def _turn(folder: str, kind: int) -> Iterator[None]:
    descriptor = None
    # Nothing is kept yet, or the file system knows no locks: no other process is to be waited for then.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(descriptor, kind)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)
