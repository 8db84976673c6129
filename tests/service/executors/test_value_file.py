from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

from service.executors import value_file


@pytest.mark.parametrize(
    "value",
    [
        None,
        {"rows": [1, 2], "table": np.arange(12, dtype=np.float32).reshape(3, 4)},
        (np.zeros((0, 3)), np.arange(10)[::2], "text"),
    ],
)
def test_what_is_written_is_read(tmp_path: Path, value: Any) -> None:
    """Also empty arrays, and such as are not contiguous."""
    value_file.write(tmp_path / "1.value", value)
    np.testing.assert_equal(value_file.read(tmp_path / "1.value"), value)


def test_sparse_matrices_are_mapped_and_not_copied(tmp_path: Path) -> None:
    """What a process writes to a mapped array stays its own, and the value survives the removal of its file."""
    matrix = csr_array(np.eye(50, dtype=np.float32))
    path = tmp_path / "1.value"
    value_file.write(path, matrix)
    first, second = value_file.read(path), value_file.read(path)
    assert not first.data.flags.owndata
    assert first.data.ctypes.data % 64 == 0
    first.data[:] = 7
    path.unlink()
    assert (second.toarray() == matrix.toarray()).all()
