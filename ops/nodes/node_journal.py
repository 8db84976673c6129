"""What happened on the nodes of a drill, and when: so that a failed request explains itself."""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, Thread
from typing import IO, Final

# What keepalived writes before each line.
_WHEN: Final = re.compile(r"^\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}: ")


@dataclass(frozen=True, slots=True)
class Note:
    """One thing that happened.

    Attributes:
        at_s: When, on the journal's clock.
        node: Where.
        text: What.
    """

    at_s: float
    node: str
    text: str

    def __str__(self) -> str:
        return f"{self.at_s:.2f} s, {self.node}: {self.text}"


class NodeJournal:
    """Notes in the order of time; any thread may add one.

    Args:
        clock: Returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._zero_s = 0.0
        self._lock = Lock()
        self._notes: list[Note] = []

    def begin(self) -> float:
        """Forget what happened so far, and count the journal's time from now on, which the clock says."""
        with self._lock:
            self._zero_s = self._clock()
            self._notes.clear()
            return self._zero_s

    def add(self, node: str, text: str) -> None:
        """Note what happens now."""
        with self._lock:
            self._notes.append(Note(self._clock() - self._zero_s, node, text))

    def follow(self, node: str, output: IO[bytes], file: Path, noted: re.Pattern[str]) -> Thread:
        """Copy the output of a program to a file, line by line until it ends, and note the lines that match."""

        def copy() -> None:
            with output, file.open("ab", buffering=0) as copied:
                for line in output:
                    copied.write(line)
                    text = _WHEN.sub("", line.decode(errors="replace")).strip()
                    if noted.search(text):
                        self.add(node, text)

        thread = Thread(target=copy, daemon=True)
        thread.start()
        return thread

    def between(self, start_s: float, stop_s: float) -> Iterator[Note]:
        """Yield the notes of a span of the journal's clock."""
        with self._lock:
            notes = list(self._notes)
        return (note for note in notes if start_s <= note.at_s <= stop_s)
