"""What the system prints: a pipe with one reader, the drill, that can stop reading.

The invariant: nothing that was read is dropped, all of it is in a file; while the reader rests, the system faces a full
pipe, of the smallest size that the kernel gives.
"""

import asyncio
import contextlib
import fcntl
import os
from pathlib import Path
from typing import Self

_F_SETPIPE_SZ = 1031  # fcntl(2), Linux
_SMALLEST_BYTES = 4096


class Output:
    """A named pipe and the file that its contents go to; a context in a running loop.

    Args:
        pipe: Where the system is to print; made here.
        file: Where it ends up.
    """

    def __init__(self, pipe: Path, file: Path) -> None:
        self.pipe = pipe
        self.file = file
        os.mkfifo(pipe, 0o600)
        # Opened without waiting for a writer; the system then opens it without waiting for a reader.
        self._fd = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        # A writer of our own, or the pipe would be at its end whenever the system's writers are gone.
        self._keep_fd = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._fd, _F_SETPIPE_SZ, _SMALLEST_BYTES)
        self._file = file.open("ab", buffering=0)

    def __enter__(self) -> Self:
        """Begin to read."""
        self.go_on()
        return self

    def __exit__(self, *_: object) -> None:
        """Read what is left, and close."""
        self.rest()
        self._take()
        os.close(self._fd)
        os.close(self._keep_fd)
        self._file.close()
        self.pipe.unlink(missing_ok=True)

    def rest(self) -> None:
        """Read no more."""
        asyncio.get_running_loop().remove_reader(self._fd)

    def go_on(self) -> None:
        """Read again."""
        asyncio.get_running_loop().add_reader(self._fd, self._take)

    def last_words(self) -> str:
        """Return the last line that says something."""
        lines = [line for line in self.file.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip() if lines else "nothing"

    def _take(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._fd, _SMALLEST_BYTES):
                self._file.write(data)
