"""Named pipes, such as a shell makes of `<(zcat ratings.csv.gz)`, as files that can be read again.

Invariant: a pipe is read once, to its end. A pipe that no process writes to is refused after a while and never waited
for without end; one with a process at its other end is waited for as standard input is.
"""

import functools
import os
import select
import shutil
import tempfile
from pathlib import Path
from typing import IO, Final

from service.errors import DataError

# A shell starts what writes at the same time as what reads.
_NO_WRITER_S: Final = 10.0
_PIECE_BYTES: Final = 1 << 20


def copied(path: Path, no_writer_s: float = _NO_WRITER_S) -> Path:
    """Return a file with all that a pipe holds; the file is deleted when the process ends.

    Args:
        path: The pipe. A second call for it returns the same file.
        no_writer_s: How long a pipe without a process that writes to it is waited for, in seconds.

    Raises:
        DataError: No process writes to it, or it cannot be read.
    """
    status = path.stat()
    return Path(_copy(_Pipe(path, no_writer_s, (status.st_dev, status.st_ino))).name)


class _Pipe:
    """A pipe that is itself however it is called."""

    def __init__(self, path: Path, no_writer_s: float, identity: tuple[int, int]) -> None:
        self.path = path
        self.no_writer_s = no_writer_s
        self._identity = identity

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Pipe) and other._identity == self._identity

    def __hash__(self) -> int:
        return hash(self._identity)


@functools.cache
def _copy(pipe: _Pipe) -> IO[bytes]:
    try:
        # Opened without waiting for a writer, which the system would do for ever.
        file = os.open(pipe.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return _read_whole(pipe, file)
        finally:
            os.close(file)
    except OSError as error:
        raise DataError(f"{pipe.path} cannot be read: {error.strerror or error}") from error


def _read_whole(pipe: _Pipe, file: int) -> IO[bytes]:
    head = _first_piece(pipe, file)
    os.set_blocking(file, True)
    copy = tempfile.NamedTemporaryFile(prefix="recollect-pipe-")  # noqa: SIM115 - lives as long as the process
    copy.write(head)
    with open(file, "rb", closefd=False) as source:
        shutil.copyfileobj(source, copy, _PIECE_BYTES)
    copy.flush()
    return copy


def _first_piece(pipe: _Pipe, file: int) -> bytes:
    """Return the first bytes; nothing if the process at the other end has not written yet, or never will."""
    poll = select.poll()
    # A pipe that never had a writer says nothing and is at its end; one whose writer has gone says that it hung up.
    poll.register(file, select.POLLIN)
    for wait_s in (0.0, pipe.no_writer_s):
        has_news = bool(poll.poll(wait_s * 1000))
        try:
            piece = os.read(file, _PIECE_BYTES)
        except BlockingIOError:  # a process has it open
            return b""
        if piece or has_news:
            return piece
    raise DataError(
        f"{pipe.path} is a pipe, and no process wrote to it within {pipe.no_writer_s:g} seconds: start what writes the "
        "data, or give a file"
    )
