"""Follows the key file in a thread: a change is in force within a second, and a slow disk delays no request.

Invariant: the gate gets only complete, valid key files. While the file is unreadable or missing, the last good keys
stay in force, so a gate that has keys never opens.
"""

import threading
import time
from collections.abc import Callable
from typing import Final

from service.errors import KeysRefused
from service.security.gate import Gate
from service.security.key_file import KeyFile, Signature
from service.security.keyring import Keyring

INTERVAL_S: Final = 0.25


class KeyWatcher:
    """Keeps one gate current with the key file.

    The thread calls `on_change` with the number of keys now in force, and `on_problem` with a sentence, once per reason
    why the file is not in force.
    """

    def __init__(
        self,
        file: KeyFile,
        gate: Gate,
        on_change: Callable[[int], None],
        on_problem: Callable[[str], None],
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._file = file
        self._gate = gate
        self._on_change = on_change
        self._on_problem = on_problem
        self._interval_s = interval_s
        self._loaded: Signature | None = None
        self._problem: str | None = None
        self._confirmed_s = time.monotonic()
        self._stopping = threading.Event()

    @property
    def age_s(self) -> float:
        """Seconds since the keys in force were last found equal to the file."""
        return time.monotonic() - self._confirmed_s

    def start(self) -> None:
        """Follow the file until `stop`; a check that hangs delays neither requests nor the end of the process."""
        threading.Thread(target=self._run, name="key-watcher", daemon=True).start()

    def stop(self) -> None:
        """Stop following the file."""
        self._stopping.set()

    def check(self) -> None:
        """Check once, and put a changed file in force."""
        try:
            found = self._file.signature()
            if found != self._loaded or self._problem is not None or (found is None and self._gate.keyring is not None):
                self._load(found)
        except KeysRefused as error:
            self._report_problem(str(error))
        except OSError as error:
            self._report_problem(f"The key file {self._file.path} cannot be read: {error.strerror or error}.")
        else:
            self._problem = None
            self._confirmed_s = time.monotonic()

    def _load(self, found: Signature | None) -> None:
        keys = self._file.read()
        if keys is None:
            if self._gate.keyring is not None:
                raise KeysRefused(f"The key file {self._file.path} is gone.")
        else:
            self._gate.keyring = Keyring(keys)
            self._on_change(len(keys))
        # The signature from before the read, so that a file replaced during the read is read again.
        self._loaded = found

    def _report_problem(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            kept = " The last good keys stay in force." if self._gate.keyring is not None else ""
            self._on_problem(f"{problem}{kept}")

    def _run(self) -> None:
        while not self._stopping.wait(self._interval_s):
            self.check()
