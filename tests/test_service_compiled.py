from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numba
import pytest

from service.training.algorithms.compiled import compiled


def _doubled(number: int) -> int:
    return 2 * number


def test_without_any_place_to_keep_it_a_function_is_compiled_all_the_same() -> None:
    """A function of no file has no place for numba's cache, as one of a file that nobody may write beside."""
    namespace: dict[str, Callable[[int], int]] = {}
    exec("def tripled(number):\n    return 3 * number", namespace)  # a function that no file holds
    with pytest.raises(RuntimeError, match="no locator available"):
        numba.njit(cache=True)(namespace["tripled"])
    assert compiled(namespace["tripled"])(14) == 42


def test_what_is_compiled_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next process reads it back instead of compiling."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    assert compiled(_doubled)(4) == 8
    assert list(tmp_path.rglob("*.nbi"))
