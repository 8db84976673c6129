"""Values in Ray's object store: the bytes of arrays are not copied where a worker reads them.

A value is pickled with its buffers beside it (PEP 574), and each buffer is an array of bytes, which Ray maps. Ray's own
way would do the same with arrays that are marked read-only, for which compiled kernels have another type.
"""

import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Packed:
    """A value as Ray holds it.

    Attributes:
        head: The pickle.
        parts: uint8, its buffers.
    """

    head: bytes
    parts: tuple[NDArray[np.uint8], ...]


class _Memory:
    """Memory that numpy may mark writable; it keeps the array alive whose memory it is."""

    def __init__(self, array: NDArray[np.uint8]) -> None:
        address, _ = array.__array_interface__["data"]
        self._array = array
        self.__array_interface__ = {"shape": array.shape, "typestr": "|u1", "data": (address, False), "version": 3}


def pack(value: Any) -> Packed:
    """Return a value as Ray holds it; its arrays are not copied here."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return Packed(head, tuple(np.frombuffer(buffer.raw(), np.uint8) for buffer in buffers))


def unpack(packed: Packed) -> Any:
    """Return the value; its arrays are shared with other processes, and must not be written."""
    # The value is of this executor's own processes: to reach them takes the cluster's token.
    return pickle.loads(packed.head, buffers=[_unmarked(part) for part in packed.parts])  # noqa: S301


def _unmarked(part: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an array of the same memory that is not marked read-only."""
    return np.asarray(_Memory(part)) if part.size else np.empty(0, np.uint8)
