import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import pytest

from service.training.algorithms.kernels import compiled as module
from service.training.algorithms.kernels.compiled import compiled, is_kept

ROOT = Path(__file__).resolve().parents[5]


def _doubled(number: int) -> int:
    return 2 * number


def _tripled(number: int) -> int:
    return 3 * number


def test_a_function_without_a_cache_directory_is_compiled() -> None:
    """A function without a file has none, as one in a read-only directory."""
    namespace: dict[str, Callable[[int], int]] = {}
    exec("def tripled(number):\n    return 3 * number", namespace)  # a function that no file holds
    with pytest.raises(RuntimeError, match="no locator available"):
        numba.njit(cache=True)(namespace["tripled"])
    assert compiled(namespace["tripled"])(14) == 42


def test_machine_code_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache directory has an index."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    assert compiled(_doubled)(4) == 8
    assert list(tmp_path.rglob("*.nbi"))


def test_a_change_of_a_called_kernel_reaches_its_callers(tmp_path: Path) -> None:
    """The caller's own file is unchanged, and yet it is compiled anew."""
    program = """
import sys, numba
numba.config.CACHE_DIR = sys.argv[1]
sys.path.insert(0, sys.argv[2])
from caller import doubled
print(doubled(4), sum(doubled.stats.cache_hits.values()))
"""
    head = "from service.training.algorithms.kernels.compiled import compiled\n"
    (tmp_path / "caller.py").write_text(
        f"{head}from callee import times\n\n@compiled\ndef doubled(n):\n    return times(n, 2)\n"
    )

    def run(callee: str) -> str:
        (tmp_path / "callee.py").write_text(f"{head}\n@compiled\ndef times(n, m):\n    return {callee}\n")
        command = [sys.executable, "-B", "-c", program, str(tmp_path / "cache"), str(tmp_path)]
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=100).stdout

    assert run("n * m") == "8 0\n"
    assert run("n * m") == "8 1\n"
    assert run("n + m") == "6 0\n"


def test_a_change_in_a_folder_of_kernels_makes_kept_code_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel may call another one of any folder."""
    kernel_file = tmp_path / "kernels" / "sparse" / "rows.py"
    kernel_file.parent.mkdir(parents=True)
    kernel_file.write_text("n = 2\n")
    monkeypatch.setattr(module, "_KERNELS", tmp_path / "kernels")
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    assert compiled(_doubled)(4) == 8
    assert is_kept(compiled(_doubled))
    kernel_file.write_text("n = 3\n")
    module._digest.cache_clear()
    assert not is_kept(compiled(_doubled))


def test_code_beside_the_source_is_used_where_new_code_is_kept_elsewhere(tmp_path: Path) -> None:
    """As in an image, whose kernels are compiled; for another kind of processor they are compiled again and kept."""
    program = """
import sys
sys.path.insert(0, sys.argv[1])
from kernel_module import doubled
from service.training.algorithms.kernels.compiled import is_kept
print(is_kept(doubled), doubled(4), sum(doubled.stats.cache_hits.values()))
"""
    (tmp_path / "kernel_module.py").write_text(
        "from service.training.algorithms.kernels.compiled import compiled\n"
        "@compiled\ndef doubled(n):\n    return n * 2\n"
    )
    plain = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    elsewhere = {**plain, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}

    def run(environ: dict[str, str]) -> str:
        command = [sys.executable, "-B", "-c", program, str(tmp_path)]
        return subprocess.run(
            command, cwd=ROOT, env=environ, check=True, capture_output=True, text=True, timeout=100
        ).stdout

    assert run(plain) == "False 8 0\n"
    assert run(elsewhere) == "True 8 1\n"
    assert not list((tmp_path / "cache").rglob("*.nb?"))
    other = {**elsewhere, "NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    assert run(other) == "True 8 0\n"
    assert run(other) == "True 8 1\n"
    assert len(list((tmp_path / "cache").rglob("*.nbc"))) == 1


def test_an_index_that_names_a_missing_class_is_stale(tmp_path: Path) -> None:
    """An upgrade leaves the index of the older release behind, and moves classes that are arguments of kernels."""
    program = """
import sys, numba
numba.config.CACHE_DIR = sys.argv[1]
sys.path.insert(0, sys.argv[2])
import kernel_module
arguments = __import__(sys.argv[3])
print(kernel_module.first(arguments.Pair(4, 5)))
"""
    (tmp_path / "kernel_module.py").write_text(
        "from service.training.algorithms.kernels.compiled import compiled\n"
        "@compiled\ndef first(pair):\n    return pair.a\n"
    )
    for name in ("old_place", "new_place"):
        module = tmp_path / f"{name}.py"
        module.write_text("from typing import NamedTuple\nclass Pair(NamedTuple):\n    a: int\n    b: int\n")
        command = [sys.executable, "-B", "-c", program, str(tmp_path / "cache"), str(tmp_path), name]
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=100)
        assert done.stdout == "4\n"
        module.unlink()


def test_processes_that_compile_at_once_take_turns(tmp_path: Path) -> None:
    """Each of eight signatures has its own file, and every process its own result."""
    program = """
import sys, numpy as np, numba
numba.config.CACHE_DIR = sys.argv[1]
sys.path.insert(0, sys.argv[2])
from kernel_module import total
for kind in sys.argv[3].split(","):
    assert total(np.ones(3, dtype=kind)) == 3, kind
"""
    (tmp_path / "kernel_module.py").write_text(
        "from service.training.algorithms.kernels.compiled import compiled\n"
        "@compiled\ndef total(a):\n    s = a[0] * 0\n    for x in a:\n        s += x\n    return s\n"
    )
    cache = tmp_path / "cache"
    kinds = ("i1,i2,f4,f8", "u1,u2,i4,i8")
    for _ in range(2):
        running = [
            subprocess.Popen([sys.executable, "-c", program, str(cache), str(tmp_path), kind], cwd=ROOT)
            for kind in kinds
        ]
        assert [process.wait(100) for process in running] == [0, 0]
    assert len(list(cache.rglob("*.nbc"))) == 8


def test_reads_and_writes_lock_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read waits for the lock of another process."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    kernel: Any = compiled(_tripled)
    assert kernel(1) == 3
    kept = kernel._cache._cache_file
    holder = os.open(kernel._cache.cache_path, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    done: list[object] = []
    waiting = threading.Thread(target=lambda: done.append(kept.load("nothing")))
    waiting.start()
    waiting.join(0.2)
    assert not done
    os.close(holder)
    waiting.join(20)
    assert done == [None]
