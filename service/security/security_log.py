"""The security log: erasures, activations of models and changes of keys, with time, process and key.

One JSON object a line, in `security/log-YYYY-MM.jsonl` under RECOLLECT_HOME. Invariants: an entry is on the disk before
its action is confirmed; entries of several processes never mix; no entry holds a user id, because an erase does not
reach this file.
"""

import asyncio
import fcntl
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import orjson

from service.security.file_owner import make_directory, open_private
from telemetry.ids import rfc3339_ms
from telemetry.wal.disk import sync_directory

DEADLINE_S: Final = 0.4
_MAX_WAITING: Final = 1_000


def new_entry(what: str, *, by: str, key: str | None, **details: Any) -> dict[str, Any]:
    """Return an entry with the current time.

    `what` is `erase`, `activate`, `key_create` or `key_revoke`, `by` the process or command, `key` the id of the
    caller's API key.
    """
    return {"at": rfc3339_ms(time.time()), "what": what, "by": by, "uid": os.getuid(), "key": key, **details}


def append(directory: Path, entries: Sequence[dict[str, Any]]) -> None:
    """Append entries of `new_entry` durably; create the folder `security` if it is missing.

    Raises:
        OSError: The log cannot be written.
    """
    make_directory(directory)
    path = directory / f"log-{time.strftime('%Y-%m', time.gmtime())}.jsonl"
    is_new = not path.exists()
    descriptor = open_private(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            # An entry cut off by a full disk must not damage the next one.
            _write(descriptor, b"\n")
        for entry in entries:
            _write(descriptor, orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if is_new:
        sync_directory(directory)


def _write(descriptor: int, line: bytes) -> None:
    if os.write(descriptor, line) != len(line):
        raise OSError(0, "An entry was cut off: the disk is full.")


class SecurityLog:
    """The security log of one replica, written by a thread so that no disk blocks the event loop."""

    def __init__(self, directory: Path, write: Callable[[Path, Sequence[dict[str, Any]]], None] = append) -> None:
        self._directory = directory
        self._append = write
        self._waiting: queue.SimpleQueue[tuple[dict[str, Any], asyncio.Future[None]]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def record(self, entry: dict[str, Any], deadline_s: float = DEADLINE_S) -> None:
        """Write an entry, and return once it is on the disk.

        Raises:
            OSError: The log cannot be written.
            TimeoutError: The entry was not written in time; it may be written later.
        """
        if self._waiting.qsize() >= _MAX_WAITING:
            raise TimeoutError("Too many entries wait for the security log.")
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="security-log", daemon=True)
            self._thread.start()
        written = asyncio.get_running_loop().create_future()
        self._waiting.put((entry, written))
        async with asyncio.timeout(deadline_s):
            await written

    def _run(self) -> None:
        while True:
            batch = [self._waiting.get()]
            with suppress(queue.Empty):
                while len(batch) < _MAX_WAITING:
                    batch.append(self._waiting.get_nowait())
            error: OSError | None = None
            try:
                self._append(self._directory, [entry for entry, _ in batch])
            except OSError as refused:
                error = refused
            for _, written in batch:
                # The loop may be closed.
                with suppress(RuntimeError):
                    written.get_loop().call_soon_threadsafe(_resolve, written, error)


def _resolve(written: asyncio.Future[None], error: OSError | None) -> None:
    if written.done():
        return
    if error is None:
        written.set_result(None)
    else:
        written.set_exception(error)
