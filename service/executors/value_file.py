"""Values as files that processes of this machine map: the bytes of arrays are not copied.

A value is pickled with its buffers beside it (PEP 574), so that arrays, also those in sparse matrices, are views of the
mapped file. Files are private to one executor, which writes them and removes them; models are never read in this way.

Layout: the number of parts, the length of each, then the parts, each at a multiple of `_ALIGNMENT`: first the pickle,
then its buffers. Numbers are unsigned 64-bit, little-endian.
"""

import mmap
import os
import pickle
import struct
from pathlib import Path
from typing import Any, Final

_ALIGNMENT: Final = 64
_PADDING: Final = bytes(_ALIGNMENT)


def write(path: Path, value: Any) -> None:
    """Write a value; the file appears complete or not at all."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    parts = [memoryview(head), *(buffer.raw() for buffer in buffers)]
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(struct.pack(f"<{len(parts) + 1}Q", len(parts), *(part.nbytes for part in parts)))
        for part in parts:
            file.write(_PADDING[: -file.tell() % _ALIGNMENT])
            file.write(part)
    temporary.replace(path)


def read(path: Path) -> Any:
    """Map a value; what is written to its arrays reaches no other process and not the file."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        # A private mapping rather than a read-only one: compiled kernels have another type for read-only arrays.
        mapped = memoryview(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY))
    (n_parts,) = struct.unpack_from("<Q", mapped)
    parts = []
    start = 8 * (n_parts + 1)
    for length in struct.unpack_from(f"<{n_parts}Q", mapped, 8):
        start += -start % _ALIGNMENT
        parts.append(mapped[start : start + length])
        start += length
    # The file is of this executor's own processes, see above.
    return pickle.loads(parts[0], buffers=parts[1:])  # noqa: S301
