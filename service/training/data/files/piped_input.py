"""Inputs that can be read only once, as temporary files that can be read again: standard input and named pipes.

A shell makes a named pipe of `<(zcat ratings.csv.gz)`.

Invariant: each is read once, to its end, and its copy is deleted when the process ends. A pipe without a writer is
refused after `_NO_WRITER_S`; a pipe with one is waited for without a limit, as standard input is.
"""

import functools
import os
import select
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from service.errors import DataError

# A shell starts the writer and the reader at the same time.
_NO_WRITER_S: Final = 10.0
_CHUNK_BYTES: Final = 1 << 20


def copy_of_standard_input() -> Path:
    """Return the copy of standard input.

    Raises:
        DataError: Standard input is a terminal, or cannot be read.
    """
    return Path(_standard_input_copy().name)


def copy_of_pipe(path: Path, no_writer_s: float = _NO_WRITER_S) -> Path:
    """Return the copy of a named pipe, the same one for every path of the pipe; wait `no_writer_s` for a writer.

    Raises:
        DataError: No process writes to it, or it cannot be read.
    """
    status = path.stat()
    return Path(_pipe_copy(_Pipe((status.st_dev, status.st_ino), path, no_writer_s)).name)


@dataclass(frozen=True)
class _Pipe:
    """A pipe, equal by device and inode, because one pipe can have several paths."""

    identity: tuple[int, int]
    path: Path = field(compare=False)
    no_writer_s: float = field(compare=False)


@functools.cache
def _standard_input_copy() -> IO[bytes]:
    if sys.stdin is None or sys.stdin.isatty():
        raise DataError("Standard input is a terminal: pipe the data in, as in: zcat ratings.csv.gz | … --data -")
    try:
        return _copy_of(sys.stdin.buffer, "recollect-stdin-")
    except OSError as error:
        raise DataError(f"Standard input cannot be read: {error.strerror or error}.") from error


@functools.cache
def _pipe_copy(pipe: _Pipe) -> IO[bytes]:
    try:
        # Without O_NONBLOCK, open() waits for a writer without a limit.
        descriptor = os.open(pipe.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as source:
            head = _first_bytes(pipe, descriptor)
            os.set_blocking(descriptor, True)
            return _copy_of(source, "recollect-pipe-", head)
    except OSError as error:
        raise DataError(f"{pipe.path} cannot be read: {error.strerror or error}.") from error


def _copy_of(source: IO[bytes], prefix: str, head: bytes = b"") -> IO[bytes]:
    copy = tempfile.NamedTemporaryFile(prefix=prefix)  # noqa: SIM115 - lives as long as the process
    copy.write(head)
    shutil.copyfileobj(source, copy, _CHUNK_BYTES)
    copy.flush()
    return copy


def _first_bytes(pipe: _Pipe, descriptor: int) -> bytes:
    """Return the first bytes; none if a writer has the pipe open and has not written yet."""
    poll = select.poll()
    # poll() reports nothing of a pipe that never had a writer, and POLLHUP of one whose writer has closed it.
    poll.register(descriptor, select.POLLIN)
    for wait_s in (0.0, pipe.no_writer_s):
        has_event = bool(poll.poll(wait_s * 1000))
        try:
            head = os.read(descriptor, _CHUNK_BYTES)
        except BlockingIOError:  # a writer has it open
            return b""
        if head or has_event:
            return head
    raise DataError(
        f"{pipe.path} is a pipe, and no process wrote to it within {pipe.no_writer_s:g} seconds: start its "
        "writer, or give a file."
    )
