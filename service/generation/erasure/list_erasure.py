"""Erases users from the generated lists in an installation's own place: a part of `DELETE /v1/users/{user_id}`.

Invariants: when `erase` returns, no complete folder holds the users, and none that becomes complete later will, because
they are listed before the folders are searched. Lists of a time after that are of users who came back, and stay. It may
be killed anywhere and called again. A process of its own reads and writes the files, because the consumer stays small
without pyarrow; it ends with the consumer.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Final

from service.errors import RunError
from service.executors.worker_process import death_reason
from service.generation.erasure.folder_search import folders_below
from service.models.files.erased_users import list_erased
from telemetry.daemon_thread import run_in_daemon_thread

_PROCESS: Final = "service.generation.erasure.erasing_process"
# The last line of a traceback begins with the type of the exception.
_EXCEPTION: Final = re.compile(rb"([A-Za-z_][\w.]*)(?::.*)?")
_READ_BYTES: Final = 4096


class GeneratedListEraser:
    """Erases users from the folders of generated lists below a directory.

    Args:
        generated_dir: The directory.
        models_dir: That of the models, which has the list of erased users.
        pseudonym_key: The key that maps the users of lists to those of telemetry; None for none.
        failpoint: The failpoints of the process that writes.
    """

    name = "generated lists"

    def __init__(
        self, generated_dir: Path, models_dir: Path, pseudonym_key: bytes | None = None, failpoint: str | None = None
    ) -> None:
        self._generated_dir = generated_dir
        self._models_dir = models_dir
        self._pseudonym_key = pseudonym_key
        self._failpoint = failpoint

    async def erase(self, requested: Mapping[str, str]) -> Mapping[str, int]:
        """Remove users from every complete folder, off the event loop.

        Args:
            requested: By id in telemetry: when the last erasure was requested, RFC 3339.

        Returns:
            Nothing: lists are no models.

        Raises:
            ModelError: The list of erased users cannot be read.
            RunError: A folder may hold one of them and cannot be read or written; the others are done.
        """
        # A hanging disk must not keep the consumer from ending; the next call completes an interrupted one.
        await run_in_daemon_thread(lambda: self.erase_now(requested), "list-eraser")
        return {}

    def erase_now(self, requested: Mapping[str, str]) -> None:
        """Remove users as `erase` does, and block."""
        if next(folders_below(self._generated_dir), None) is None:
            return
        try:
            # The models' eraser lists the same users, but it may have failed before.
            erased = list_erased(self._models_dir, requested)
        except OSError as error:
            raise RunError(f"{self._models_dir} cannot be written: {error.strerror or error}.") from error
        reason = _told(
            {
                "root": str(self._generated_dir),
                "users": {name: erased[name].listed_s if name in erased else None for name in sorted(requested)},
                "pseudonym_key": None if self._pseudonym_key is None else self._pseudonym_key.hex(),
                "failpoint": self._failpoint,
            }
        )
        if reason is not None:
            raise RunError(reason)


def _told(order: Mapping[str, Any]) -> str | None:
    """Have a process carry out an order; returns why it could not, None if it did."""
    # A file, not a pipe: however much the process writes, it does not wait for a reader.
    with tempfile.TemporaryFile() as errors:
        # Ctrl-C is for the consumer alone.
        with subprocess.Popen(
            [sys.executable, "-m", _PROCESS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            process_group=0,
        ) as process:
            if process.stdin is None or process.stdout is None:
                raise RunError(f"{_PROCESS} has no pipes.")
            try:
                # The pipe stays open until the answer: its end tells the process that this one died.
                process.stdin.write(json.dumps(order).encode() + b"\n")
                process.stdin.flush()
                answer = process.stdout.readline()
            except BrokenPipeError:
                answer = b""
            except BaseException:
                process.kill()
                raise
        if not answer.endswith(b"\n"):
            why = f"{death_reason(process.returncode)}{_exception_in(errors)}"
            return f"Users cannot be erased from generated lists: {why}"
    reason: str | None = json.loads(answer)["error"]
    return reason


def _exception_in(errors: IO[bytes]) -> str:
    """Return a sentence with the type of the exception in the last line of a process's errors; empty without one."""
    size = errors.seek(0, os.SEEK_END)
    errors.seek(max(0, size - _READ_BYTES))
    lines = errors.read().split(b"\n")[:-1]
    # Its text may name a user, and the reason is logged.
    found = _EXCEPTION.fullmatch(lines[-1]) if lines else None
    return "" if found is None else f" Its last error is {found[1].decode()}."
