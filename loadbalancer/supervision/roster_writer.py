"""Keeps run/topology.json up to date beside the event loop.

Invariant: the newest rows are written last. Rows that are superseded during a write are never written.
"""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from loadbalancer import roster
from loadbalancer.supervision.disk_worker import DiskWorker


class RosterWriter:
    """Writes the rows of one home directory; used in a running event loop.

    Args:
        home: The home directory.
        disk: Runs the writes.
        notify: Called with a sentence if the rows cannot be written.
    """

    def __init__(self, home: Path, disk: DiskWorker, notify: Callable[[str], None]) -> None:
        self._home = home
        self._disk = disk
        self._notify = notify
        self._rows: Sequence[roster.Row] = []
        self._writing: asyncio.Task[None] | None = None

    def publish(self, rows: Sequence[roster.Row]) -> None:
        """Write rows that differ from the last ones."""
        if rows == self._rows:
            return
        self._rows = rows
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write(), name="roster")

    async def flush(self) -> None:
        """Wait until the published rows are written."""
        if self._writing is not None:
            await asyncio.wait([self._writing])

    async def remove(self, timeout_s: float) -> None:
        """Remove the rows. If the disk hangs they stay, and the next start finds that their processes are gone."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
        await asyncio.wait([self._disk.submit(lambda: roster.remove(self._home))], timeout=timeout_s)

    async def _write(self) -> None:
        written: Sequence[roster.Row] | None = None
        while written is not self._rows:
            written = rows = self._rows
            try:
                await self._disk.submit(lambda rows=rows: roster.write(self._home, rows))  # type: ignore[misc]
            except OSError as error:
                # A full disk must not stop the supervision.
                self._notify(f"{roster.path_in(self._home)} cannot be written and is out of date: {error}.")
