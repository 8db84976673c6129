"""The checkpoint of a group: the command keeps it, so that members need no disk that they share.

Invariant: all members continue from the same bytes, those that the first member has from the command.
"""

import io
import time
from collections.abc import Callable
from typing import BinaryIO, Final

from service.training.checkpoints.folder import MOST_SHARE
from service.training.deep.group.group import Group


class GroupCheckpoint:
    """The checkpoint of one fit, as `Checkpoint`.

    Args:
        group: The group.
    """

    def __init__(self, group: Group) -> None:
        self._group: Final = group
        self._interval_s: Final = group.member.keep_interval_s
        self._next_s = time.monotonic() + (self._interval_s or 0.0)

    @property
    def is_due(self) -> bool:
        """Whether it is time to send one, which the first member does."""
        return self._interval_s is not None and self._group.is_first and time.monotonic() >= self._next_s

    def read(self) -> bytes | None:
        """Return what was sent last, to all members; None if nothing was."""
        return self._group.bytes_of_first(self._group.member.kept)

    def write(self, content: Callable[[BinaryIO], None]) -> None:
        """Send what `content` writes into a file."""
        started_s = time.monotonic()
        file = io.BytesIO()
        content(file)
        self._group.member.keep(file.getvalue())
        ended_s = time.monotonic()
        if self._interval_s:
            self._next_s = ended_s + max(self._interval_s, (ended_s - started_s) / MOST_SHARE)

    def remove(self) -> None:
        """Do nothing: what cannot be read is replaced by the next one."""
