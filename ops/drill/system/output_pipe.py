"""The output of the drilled system: a pipe whose only reader, the drill, can pause.

Invariant: everything read is appended to a file. While reading is paused the system faces a full pipe, of the smallest
size that the kernel allows.
"""

import asyncio
import contextlib
import fcntl
import os
from pathlib import Path
from typing import Self

_F_SETPIPE_SZ = 1031  # fcntl(2), Linux
_MIN_PIPE_BYTES = 4096


class OutputPipe:
    """A named pipe and the file that collects its contents; a context in a running loop.

    Args:
        pipe: The path that the system prints to; created here.
        file: The file.
    """

    def __init__(self, pipe: Path, file: Path) -> None:
        self.pipe = pipe
        self.file = file
        os.mkfifo(pipe, 0o600)
        # Opened without waiting for a writer; the system then opens it without waiting for a reader.
        self._fd = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        # Without a writer of the drill's own, the pipe would be at its end whenever the system has none.
        self._writer_fd = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._fd, _F_SETPIPE_SZ, _MIN_PIPE_BYTES)
        self._file = file.open("ab", buffering=0)

    def __enter__(self) -> Self:
        """Start reading."""
        self.resume()
        return self

    def __exit__(self, *_: object) -> None:
        """Read the rest, and close."""
        self.pause()
        self._read()
        os.close(self._fd)
        os.close(self._writer_fd)
        self._file.close()
        self.pipe.unlink(missing_ok=True)

    def pause(self) -> None:
        """Stop reading."""
        asyncio.get_running_loop().remove_reader(self._fd)

    def resume(self) -> None:
        """Start reading."""
        asyncio.get_running_loop().add_reader(self._fd, self._read)

    def last_line(self) -> str:
        """Return the last line that is not blank, or "nothing"."""
        lines = [line for line in self.file.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip() if lines else "nothing"

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._fd, _MIN_PIPE_BYTES):
                self._file.write(data)
