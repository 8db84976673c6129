"""Compiles the inner loops of algorithms and keeps the machine code on disk.

Invariants:

- Kept code is stale when any file beside the function, or any file in the folder of this one, has changed. numba alone
  compares the function's own file, and would go on using an old copy of a kernel that was called from another file.
- Processes that compile at once write the kept code one after the other. numba names a file of machine code after the
  entries of its index, and writes the index first: without the lock, two processes could give two signatures one file.
- Code that is kept beside the source is used wherever new code is kept, so that an image brings compiled kernels and
  its root file system may be read-only.
"""

import contextlib
import fcntl
import functools
import hashlib
import inspect
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

from numba import njit
from numba.core.caching import FunctionCache, IndexDataCacheFile

Kernel = TypeVar("Kernel", bound=Callable[..., object])

_KERNELS: Final = Path(__file__).parent


def compiled(function: Kernel) -> Kernel:
    """Compile a function of arrays and numbers on its first call; it runs without the interpreter lock.

    The code is kept in NUMBA_CACHE_DIR if that is set, else beside the source, or in the user's cache directory if that
    is not writable. If none is, every run compiles what the place beside the source does not have for its processor.
    """
    kernel: Any = njit(nogil=True)(function)
    with contextlib.suppress(RuntimeError):  # "cannot cache function: no locator available"
        kernel._cache = _KernelCache(function)  # noqa: SLF001  # what `cache=True` assigns
    result: Kernel = kernel
    return result


def is_kept(kernel: Callable[..., object]) -> bool:
    """Whether machine code of a `compiled` function is kept on disk and current, so that its first call is fast."""
    cache = getattr(kernel, "_cache", None)
    # The index has an entry for each signature, and none if its stamp is stale.
    return isinstance(cache, _KernelCache) and cache.has_entries()


class _LockedFiles(IndexDataCacheFile):
    """The index and machine code of one function, read and written under a lock on their folder.

    Args:
        folder: Where they are.
        name: The beginning of their names.
        stamp: What they depend on; others are stale.
        shipped: The same function's files in another folder, which are only read, or None.
    """

    def __init__(
        self, folder: str | Path, name: str, stamp: tuple[object, ...], shipped: "_LockedFiles | None" = None
    ) -> None:
        super().__init__(str(folder), name, stamp)  # type: ignore[no-untyped-call]  # numba's
        self._shipped = shipped

    def save(self, key: object, data: object) -> None:
        with _locked(self._cache_path, fcntl.LOCK_EX):
            super().save(key, data)  # type: ignore[no-untyped-call]  # numba's

    def load(self, key: object) -> object:
        with _locked(self._cache_path, fcntl.LOCK_SH):
            found: object = super().load(key)  # type: ignore[no-untyped-call]  # numba's
        return self._shipped.load(key) if found is None and self._shipped is not None else found

    def has_entries(self) -> bool:
        """Whether the index names any machine code."""
        return bool(self._load_index()) or (self._shipped is not None and self._shipped.has_entries())

    def _load_index(self) -> dict[object, str]:
        try:
            index: dict[object, str] = super()._load_index()  # type: ignore[no-untyped-call]  # numba's
        except (AttributeError, ImportError):
            # An index of an older release may name a class that no longer exists.
            return {}
        return index


class _KernelCache(FunctionCache):
    """numba's cache of one function, with a stamp of every file that the function may call into."""

    def __init__(self, function: Callable[..., object]) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]  # numba's
        folder = Path(inspect.getfile(function)).parent
        stamp = (self._impl.locator.get_source_stamp(), _digest(folder, "*.py"), _digest(_KERNELS, "**/*.py"))
        name, beside = self._impl.filename_base, folder / "__pycache__"
        shipped = None if Path(self._cache_path) == beside else _LockedFiles(beside, name, stamp)
        self._files = _LockedFiles(self._cache_path, name, stamp, shipped)
        self._cache_file = self._files

    def has_entries(self) -> bool:
        """Whether the index names any machine code."""
        with contextlib.suppress(OSError, EOFError, pickle.PickleError):
            return self._files.has_entries()
        return False


@functools.cache
def _digest(folder: Path, pattern: str) -> str:
    """Return the sha256 of the paths and contents of the files in a folder that match a pattern of `Path.glob`."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob(pattern)):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder)} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


@contextlib.contextmanager
def _locked(folder: str, kind: int) -> Iterator[None]:
    descriptor = None
    # Without a folder nothing is kept yet; without locks in the file system processes cannot take turns.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(descriptor, kind)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)
