from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

from service.executors.ray_values import Packed, pack, unpack


def as_ray_holds_it(packed: Packed) -> Packed:
    """Return it with the read-only parts that Ray's store has."""
    parts = tuple(part.copy() for part in packed.parts)
    for part in parts:
        part.flags.writeable = False
    return Packed(packed.head, parts)


@pytest.mark.parametrize(
    "value",
    [
        None,
        {"rows": [1, 2], "table": np.arange(12, dtype=np.float32).reshape(3, 4)},
        (np.zeros((0, 3)), np.arange(10)[::2], np.asfortranarray(np.eye(3)), "text"),
    ],
)
def test_what_is_packed_is_unpacked(value: Any) -> None:
    """Also empty arrays, and such as are not contiguous or of columns."""
    np.testing.assert_equal(unpack(as_ray_holds_it(pack(value))), value)


def test_arrays_are_shared_and_of_the_type_that_kernels_are_compiled_for() -> None:
    """They are not marked read-only, and their memory lives as long as they do."""
    matrix = csr_array(np.eye(50, dtype=np.float32))
    held = as_ray_holds_it(pack(matrix))
    memory = {part.ctypes.data for part in held.parts}
    unpacked = unpack(held)
    del held
    assert unpacked.data.flags.writeable
    assert {unpacked.data.ctypes.data, unpacked.indices.ctypes.data, unpacked.indptr.ctypes.data} == memory
    assert (unpacked.toarray() == matrix.toarray()).all()


def test_packing_copies_no_array() -> None:
    table = np.arange(1000.0)
    packed = pack([table])
    assert packed.parts[0].ctypes.data == table.ctypes.data
    assert len(packed.head) < 200
