"""The arrays of a published model: one file of raw little-endian numbers each.

Invariant: an array is mapped after its file is checked to be a regular file with the length, dtype, shape and sha256 of
the manifest. The check reads the file and not the map, where a file that shrinks would kill the process.
"""

import hashlib
import mmap
import os
from collections.abc import Callable, Iterable
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from service.errors import ModelRefused
from service.models.files import published_files

Arrays = dict[str, NDArray[Any]]
DTYPES: Final = {
    "user_ids": "|u1",
    "user_id_offsets": "<i8",
    "item_ids": "|u1",
    "item_id_offsets": "<i8",
    "user_factors": "<f4",
    "item_factors": "<f4",
    "user_bias": "<f4",
    "item_bias": "<f4",
    "popularity": "<f4",
    "history_indptr": "<i8",
    "history_indices": "<i4",
    "history_values": "<f4",
}
# Arrays of a model with neighbours.
NEIGHBOUR_DTYPES: Final = {
    "neighbour_indptr": "<i8",
    "neighbour_indices": "<i4",
    "neighbour_weights": "<f4",
}
# Arrays that a model may have; None where it has not.
OPTIONAL_DTYPES: Final = {
    "history_ranks": "<i4",
    "history_times": "<i8",
    "history_types": "|u1",
    "input_factors": "<f4",
    "fold_in_precision": "<f8",
    "user_inputs": "<f4",
    "user_attributes": "<i4",
}
_DIMENSIONS: Final = {
    "user_factors": 2,
    "item_factors": 2,
    "input_factors": 2,
    "fold_in_precision": 2,
    "user_inputs": 2,
    "user_attributes": 2,
    "cluster_items": 2,
}
# Arrays of a model with clusters of users.
CLUSTER_DTYPES: Final = {
    "user_clusters": "|u1",
    "cluster_items": "<i4",
}
# Arrays of a model whose training data had titles or attributes of items.
CATALOGUE_DTYPES: Final = {
    "item_records": "|u1",
    "item_record_offsets": "<i8",
}
# Above the length of any file.
_LENGTH_LIMIT: Final = 1 << 62
_PIECE_BYTES: Final = 1 << 20
# Memory per id besides its bytes: a string object, a list entry and a hash map entry.
_ID_BYTES: Final = 200
# Entries checked at a time, which bounds the memory for the check.
_BLOCK_ENTRIES: Final = 1 << 22


def dtype_of(name: str) -> str:
    """Return the dtype of an array on disk."""
    return (DTYPES | NEIGHBOUR_DTYPES | OPTIONAL_DTYPES | CATALOGUE_DTYPES | CLUSTER_DTYPES)[name]


def read(directory: Path, described: dict[str, Any], names: Iterable[str], checkpoint: Callable[[], None]) -> Arrays:
    """Check arrays of a version and map them read-only, shared between processes.

    Args:
        described: The manifest's `arrays`.
        names: The arrays to read.
        checkpoint: Called between pieces of a file; an exception from it ends the reading.

    Raises:
        ModelRefused: An array differs from the manifest, or the arrays exceed this machine's memory.
    """
    version = directory.name
    checked = {name: _described(version, name, described.get(name)) for name in names}
    needed_bytes, memory_bytes = sum(bytes_ for _, bytes_, _ in checked.values()), _memory_bytes()
    needed_bytes += sum(_ID_BYTES * checked[name][0][0] for name in checked if name.endswith("_id_offsets"))
    if needed_bytes > memory_bytes:
        raise ModelRefused(
            f"{version}: it needs {needed_bytes} bytes, and this machine has {memory_bytes} bytes of memory."
        )
    return {
        name: _map(directory / f"{name}.bin", name, shape, size_bytes, sha256, checkpoint)
        for name, (shape, size_bytes, sha256) in checked.items()
    }


def write(path: Path, name: str, array: NDArray[Any]) -> dict[str, Any]:
    """Write an array, and return its description for the manifest."""
    raw = np.ascontiguousarray(array, dtype=dtype_of(name))
    content = raw.data.cast("B") if raw.size else b""
    published_files.write(path, content)
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        "dtype": dtype_of(name),
        "shape": list(raw.shape),
        "bytes": raw.nbytes,
    }


def sparse(arrays: Arrays, name: str, values_name: str, shape: tuple[int, int]) -> csr_array:
    """Check the three arrays of a sparse matrix and combine them, without a copy but of the row pointers.

    Args:
        arrays: Contains `<name>_indptr`, `<name>_indices` and `<name>_<values_name>`.
        values_name: The suffix of its values.

    Raises:
        ModelRefused: The arrays do not fit the shape or each other, a row does not ascend, or a value is not finite.
    """
    indptr, indices, values = arrays[f"{name}_indptr"], arrays[f"{name}_indices"], arrays[f"{name}_{values_name}"]
    if (
        indptr.shape != (shape[0] + 1,)
        or indptr[0] != 0
        or indptr[-1] != indices.size
        or bool(np.any(indptr[1:] < indptr[:-1]))
    ):
        raise ModelRefused(f"The row pointers of {name} do not fit its entries.")
    if indices.shape != values.shape or (indices.size and not (indices.min() >= 0 and indices.max() < shape[1])):
        raise ModelRefused(f"The {name} names rows that are not in the vocabulary.")
    if not _ascending(indptr, indices):
        raise ModelRefused(f"The {name} has a row that is not sorted, or names one entry twice.")
    if values.size and not (np.isfinite(values.min()) and np.isfinite(values.max())):
        raise ModelRefused(f"The {values_name} of {name} hold numbers that are not finite.")
    if indptr[-1] <= np.iinfo(np.int32).max:
        # With row pointers of another width, scipy would copy all indices into private memory.
        indptr = indptr.astype(np.int32)
    return csr_array((values, indices, indptr), shape=shape, copy=False)


def _ascending(indptr: NDArray[np.int64], indices: NDArray[np.int32]) -> bool:
    """Whether the indices of every row ascend strictly."""
    for start in range(0, max(0, indices.size - 1), _BLOCK_ENTRIES):
        stop = min(start + _BLOCK_ENTRIES, indices.size - 1)
        rises = indices[start + 1 : stop + 1] > indices[start:stop]
        # The first entry of a row may be below the last one of the row before.
        first, last = np.searchsorted(indptr, (start + 1, stop + 1))
        rises[indptr[first:last] - start - 1] = True
        if not rises.all():
            return False
    return True


def _described(version: str, name: str, described: Any) -> tuple[list[int], int, str]:
    dtype = dtype_of(name)
    if not isinstance(described, dict) or described.get("dtype") != dtype:
        raise ModelRefused(f"{version}: the manifest does not describe {name} as {dtype}.")
    shape, sha256 = described.get("shape"), described.get("sha256")
    if (
        not isinstance(shape, list)
        or len(shape) != _DIMENSIONS.get(name, 1)
        or not all(type(n) is int and 0 <= n < _LENGTH_LIMIT for n in shape)
    ):
        raise ModelRefused(f"{version}: {name} has no valid shape in the manifest.")
    if not isinstance(sha256, str):
        raise ModelRefused(f"{version}: {name} has no sha256 in the manifest.")
    return shape, prod(shape) * np.dtype(dtype).itemsize, sha256


def _map(
    path: Path, name: str, shape: list[int], expected_bytes: int, sha256: str, checkpoint: Callable[[], None]
) -> NDArray[Any]:
    version = path.parent.name
    try:
        descriptor = published_files.open_regular(path)
    except OSError as error:
        raise ModelRefused(f"{version}: {name} cannot be opened: {error.strerror}.") from error
    try:
        # The length is checked first: a wrong shape then costs no memory, and a long file no time.
        size_bytes = os.fstat(descriptor).st_size
        if size_bytes != expected_bytes:
            raise ModelRefused(f"{version}: {name} has {size_bytes} bytes, and the manifest says {expected_bytes}.")
        if _sha256(descriptor, size_bytes, checkpoint) != sha256:
            raise ModelRefused(f"{version}: {name} does not have the sha256 of the manifest.")
        # Populated now, so that no request waits for a page fault.
        flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
        content = mmap.mmap(descriptor, size_bytes, flags=flags, prot=mmap.PROT_READ) if size_bytes else b""
    except OSError as error:
        raise ModelRefused(f"{version}: {name} cannot be read: {error.strerror}.") from error
    finally:
        os.close(descriptor)
    return np.frombuffer(content, dtype=dtype_of(name)).reshape(shape)


def _sha256(descriptor: int, size_bytes: int, checkpoint: Callable[[], None]) -> str:
    digest = hashlib.sha256()
    piece = memoryview(bytearray(min(_PIECE_BYTES, size_bytes)))
    left = size_bytes
    while left:
        checkpoint()
        n = os.readv(descriptor, [piece[:left]])
        if n == 0:
            break
        digest.update(piece[:n])
        left -= n
    return digest.hexdigest()


def _memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
