"""A file system that hangs below one folder, for the processes that are started with its environment."""

import shutil
import subprocess
from pathlib import Path

import pytest

_SOURCE = Path(__file__).with_name("filesystem.c")


class FileSystem:
    """See filesystem.c.

    Args:
        folder: For the library and what controls it; made here.
        below: What may hang.
    """

    def __init__(self, folder: Path, below: Path) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            pytest.skip("there is no C compiler")
        folder.mkdir()
        library = folder / "filesystem.so"
        subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-Wall", "-o", str(library), str(_SOURCE)], check=True)
        self._folder = folder
        self.environ = {
            "LD_PRELOAD": str(library),
            "RECOLLECT_TEST_CONTROL": str(folder),
            "RECOLLECT_TEST_BELOW": str(below),
        }

    def hang(self) -> None:
        (self._folder / "hang").touch()

    def heal(self) -> None:
        (self._folder / "hang").unlink()

    def watch(self) -> None:
        (self._folder / "watch").touch()

    def calls(self, *pids: int) -> set[tuple[str, str]]:
        """Return what the main threads of processes called since `watch`, and on what path."""
        path = self._folder / "calls"
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        called = (line.split(" ", 2) for line in lines)
        return {(call, where) for pid, call, where in called if int(pid) in pids}
