"""Follows the key file from a thread of its own: a change is live within a second, and a slow disk delays no request.

Invariant: the gate gets whole, valid key files only. While the file cannot be read or is gone, the last good keys stay
in force: a gate that has keys never opens.
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
    """Keeps one gate at the key file.

    Args:
        file: The key file.
        gate: What to keep current; it has the keys that were read at the start.
        changed: Told how many keys are in force now; called from the thread.
        failed: Told in a sentence why the file is not in force; called from the thread, once per reason.
        interval_s: Seconds between two looks.
    """

    def __init__(
        self,
        file: KeyFile,
        gate: Gate,
        changed: Callable[[int], None],
        failed: Callable[[str], None],
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._file = file
        self._gate = gate
        self._changed = changed
        self._failed = failed
        self._interval_s = interval_s
        self._seen: Signature | None = None
        self._complaint: str | None = None
        self._looked_s = time.monotonic()
        self._stopping = threading.Event()

    @property
    def age_s(self) -> float:
        """Seconds since the keys in force were last known to be those of the file."""
        return time.monotonic() - self._looked_s

    def start(self) -> None:
        """Follow the file until `stop`; a look that hangs keeps neither the replica nor its end waiting."""
        threading.Thread(target=self._run, name="key-watcher", daemon=True).start()

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()

    def look(self) -> None:
        """Look once, and put a changed file in force."""
        try:
            seen = self._file.signature()
            if seen != self._seen or self._complaint is not None or (seen is None and self._gate.ring is not None):
                self._take(seen)
        except (KeysRefused, OSError) as error:
            self._complain(str(error))
        else:
            self._complaint = None
            self._looked_s = time.monotonic()

    def _take(self, seen: Signature | None) -> None:
        keys = self._file.read()
        if keys is None:
            # No file and no trace of one: what has keys keeps them.
            if self._gate.ring is not None:
                raise KeysRefused(f"the key file {self._file.path} is gone")
        else:
            self._gate.ring = Keyring(keys)
            self._changed(len(keys))
        # Taken before the read: a file that was replaced meanwhile is read again.
        self._seen = seen

    def _complain(self, complaint: str) -> None:
        if complaint != self._complaint:
            self._complaint = complaint
            kept = "; the last good keys stay in force" if self._gate.ring is not None else ""
            self._failed(f"{complaint}{kept}")

    def _run(self) -> None:
        while not self._stopping.wait(self._interval_s):
            self.look()
