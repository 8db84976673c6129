"""The archive: dated JSON lines that hold every event once.

Invariant, the order of a commit: append and fdatasync the lines, then one catalogue transaction that makes
them true, and only then may anybody be told. A crash between the two leaves a tail that the next holder of
the lease cuts off; the events come again from the stream.

Files are written through aiofiles in one thread, one call for each commit; the catalogue has another thread.
"""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

from aiofiles.os import wrap

from telemetry.batch import Position
from telemetry.catalogue import Catalogue, Change, FileLength, Progress, SeenKey
from telemetry.errors import ArchiveError, LeaseLostError
from telemetry.lease import HolderLock, LeaseWatch, this_machine
from telemetry.parts import Parts, cut_to_committed

_POLL_S = 0.2
_EXPIRE_AT_ONCE = 2000

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Archive:
    """One consumer's hold on an archive.

    Args:
        root: The archive's directory; made if it is not there.
        checkpoint: Called with "appended" and "committed" at those moments of each commit; a fault
            injected there shows what a crash leaves.
    """

    def __init__(self, root: Path, *, checkpoint: Callable[[str], None] | None = None) -> None:
        self._root = root
        self._checkpoint = checkpoint or (lambda _moment: None)
        self._files = ThreadPoolExecutor(1, thread_name_prefix="archive-files")
        self._sql = ThreadPoolExecutor(1, thread_name_prefix="archive-catalogue")
        self._append = wrap(self._append_now)
        self._catalogue: Catalogue | None = None
        self._parts: Parts | None = None
        self._lock: HolderLock | None = None
        self._lease_epoch: int | None = None
        self.watermarks: dict[str, Position] = {}
        self.damaged: list[str] = []

    def __repr__(self) -> str:
        return f"<Archive {self._root} lease={self._lease_epoch}>"

    @property
    def lease_epoch(self) -> int | None:
        """Our lease, or None while we stand by."""
        return self._lease_epoch

    async def acquire(self, takeover_s: float, on_standby: Callable[[str], None] | None = None) -> int:
        """Wait for the lease, take it, and bring the files to what the catalogue says.

        Args:
            takeover_s: How long another holder's heartbeat must stand still.
            on_standby: Called once with the holder's name if there is somebody to wait for.

        Returns:
            The epoch of our lease.

        Raises:
            ArchiveError: The archive cannot be opened.
        """
        machine = this_machine()
        watch = LeaseWatch(takeover_s, machine)
        name = f"{socket.gethostname()}:{os.getpid()}"
        if self._catalogue is None:
            await self._in_sql(self._open)
        if self._catalogue is None or self._lock is None:
            raise ArchiveError(f"the archive in {self._root} is closed")
        catalogue, lock = self._catalogue, self._lock
        told = False
        while True:
            seen = await self._in_sql(catalogue.lease)
            locked = lock.acquire()
            if watch.may_take(seen, time.monotonic(), locked=locked):
                lease = await self._in_sql(catalogue.take_lease, seen, name, machine, locked=locked)
                if lease is not None:
                    break
            elif not told and on_standby is not None:
                told = True
                on_standby(seen.holder)
            # A standby that kept the lock would look like a living holder.
            lock.release()
            await asyncio.sleep(_POLL_S)
        self._lease_epoch = lease.epoch
        self._parts = Parts(self._root, lease.epoch)
        lengths = await self._in_sql(catalogue.files)
        try:
            self.damaged = await self._in_files(cut_to_committed, self._root, lengths)
        except OSError as error:
            raise ArchiveError(
                f"the archive in {self._root} cannot be brought to its committed lengths: {error}"
            ) from None
        self.watermarks = await self._in_sql(catalogue.watermarks)
        return lease.epoch

    async def beat(self) -> None:
        """Show that we live.

        Raises:
            LeaseLostError: Another consumer took over.
            ArchiveError: The catalogue cannot be written.
        """
        catalogue, lease_epoch = self._held()
        locked = self._lock is not None and self._lock.acquire()
        await self._in_sql(catalogue.beat, lease_epoch, locked=locked)

    async def seen(self, keys: Sequence[SeenKey]) -> set[SeenKey]:
        """Tell which (tenant, event_id) pairs were archived within the window.

        Args:
            keys: What to look up.

        Returns:
            Those that were.
        """
        catalogue, _ = self._held()
        return await self._in_sql(catalogue.seen, keys) if keys else set()

    async def commit(
        self,
        folders: Mapping[str, Sequence[bytes]],
        progress: Mapping[tuple[str, int], Progress],
        seen: Sequence[SeenKey],
    ) -> None:
        """Add lines to the archive, all of them or nothing. Must not be cancelled half way.

        Args:
            folders: For each folder (`parts.date_folder` or `parts.DEAD_LETTERS`) its lines.
            progress: What this adds for each (producer, epoch).
            seen: Event ids to remember.

        Raises:
            LeaseLostError: Another consumer took over; nothing was added.
            ArchiveError: The disk or the catalogue refused; nothing is known to have been added.
        """
        catalogue, lease_epoch = self._held()
        data = {folder: (b"".join(lines), len(lines)) for folder, lines in folders.items() if lines}
        try:
            lengths = await self._append(data, executor=self._files)
        except OSError as error:
            raise ArchiveError(f"the archive in {self._root} cannot be appended to: {error.strerror}") from None
        self._checkpoint("appended")
        change = Change(lengths, progress, seen, int(time.time()))
        await self._in_sql(catalogue.commit, lease_epoch, change)
        self._checkpoint("committed")
        if self._parts is not None:
            self._parts.committed(lengths)
        for (producer, epoch), one in progress.items():
            reached = Position(epoch, one.seq)
            self.watermarks[producer] = max(self.watermarks.get(producer, reached), reached)

    async def expire_seen(self, days: int) -> None:
        """Forget some event ids that are older than the window.

        Args:
            days: The window.
        """
        catalogue, lease_epoch = self._held()
        before_s = int(time.time()) - days * 86_400
        await self._in_sql(catalogue.expire_seen, lease_epoch, before_s, _EXPIRE_AT_ONCE)

    async def release(self) -> None:
        """Stop writing; a successor may start at once. Does nothing while we stand by."""
        lease_epoch, self._lease_epoch = self._lease_epoch, None
        if self._parts is not None:
            await self._in_files(self._parts.close)
            self._parts = None
        try:
            if lease_epoch is not None and self._catalogue is not None:
                await self._in_sql(self._catalogue.release_lease, lease_epoch)
        finally:
            if self._lock is not None:
                self._lock.release()

    async def close(self) -> None:
        """Release the lease, close the catalogue and end the threads."""
        try:
            await self.release()
        finally:
            catalogue, self._catalogue = self._catalogue, None
            if catalogue is not None:
                await self._in_sql(catalogue.close)
            self._files.shutdown()
            self._sql.shutdown()

    def _open(self) -> None:
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ArchiveError(f"the archive {self._root} cannot be made: {error.strerror}") from None
        self._catalogue = Catalogue(self._root)
        self._lock = HolderLock(self._root)

    def _append_now(self, data: Mapping[str, tuple[bytes, int]]) -> dict[str, FileLength]:
        if self._parts is None:
            raise ArchiveError("the archive is not held")
        return self._parts.append(data)

    def _held(self) -> tuple[Catalogue, int]:
        if self._catalogue is None or self._lease_epoch is None:
            raise LeaseLostError("this consumer does not hold the archive's lease")
        return self._catalogue, self._lease_epoch

    async def _in_sql(self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._sql, lambda: call(*args, **kwargs))

    async def _in_files(self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._files, lambda: call(*args, **kwargs))
