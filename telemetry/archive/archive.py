"""The archive: dated JSON lines that hold every event once.

Invariant, the order of a commit: append and fdatasync the lines, then one catalogue transaction that makes
them true, and only then may anybody be told. A crash between the two leaves a tail that the next holder of
the lease cuts off; the events come again from the stream.

Commits and seals take turns; what is sealed is never appended to again, so that it may be read, rewritten or
compacted beside us. Files are written through aiofiles in one thread, one call for each commit; the catalogue
has another thread.
"""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

from aiofiles.os import wrap

from telemetry.archive.archive_files import ArchiveFiles, cut_to_committed
from telemetry.archive.retention import RetiredRun, Retirements
from telemetry.batch import Position
from telemetry.catalogue.archive_clock import ArchiveClock
from telemetry.catalogue.catalogue import Catalogue
from telemetry.catalogue.commit import CatalogueChange, CommitContent, ErasureRequest, FileLength, SeenKey
from telemetry.catalogue.delivery_attempts import Attempt, Attempts
from telemetry.catalogue.lease import HolderLock, LeaseWatch, this_machine
from telemetry.erasure.erasure import LateEventFilter
from telemetry.erasure.erasure_requests import Erasures, Replacement
from telemetry.errors import ArchiveError, LeaseLostError
from telemetry.failpoints import Failpoints
from telemetry.fingerprint import Fingerprints
from telemetry.ids import rfc3339_ms, uuid7
from telemetry.stream.namespace_owner import OwnerMark

_POLL_S = 0.2
_DATE_LENGTH = len("2026-11-21")

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Archive:
    """One consumer's hold on an archive.

    Args:
        root: The archive's directory; made if it is not there.
        part_bytes: A part this long is sealed and others begun.
        part_s: So are parts this old.
        failpoints: Where a drill may strike.
    """

    def __init__(
        self,
        root: Path,
        *,
        part_bytes: int = 64 * 1024 * 1024,
        part_s: float = 900.0,
        failpoints: Failpoints | None = None,
    ) -> None:
        self.root = root
        self._part_bytes = part_bytes
        self._part_s = part_s
        self._failpoints = failpoints or Failpoints()
        self._writing = asyncio.Lock()
        # Names this object to its successors, which judge by it who died.
        self._run = uuid7()
        self._files = ThreadPoolExecutor(1, thread_name_prefix="archive-files")
        self._sql = ThreadPoolExecutor(1, thread_name_prefix="archive-catalogue")
        self._append = wrap(self._append_now)
        self._catalogue: Catalogue | None = None
        self._attempts: Attempts | None = None
        self._erasures: Erasures | None = None
        self._retirements: Retirements | None = None
        self._parts: ArchiveFiles | None = None
        self._lock: HolderLock | None = None
        self._lease_epoch: int | None = None
        self._identity: OwnerMark | None = None
        self._clock = ArchiveClock(0)
        self.fingerprints = Fingerprints()
        # Where its mark was left last, in words.
        self.place: str | None = None
        self.watermarks: dict[str, Position] = {}
        self.damaged: list[str] = []

    def __repr__(self) -> str:
        return f"<Archive {self.root} lease={self._lease_epoch}>"

    @property
    def lease_epoch(self) -> int | None:
        """Our lease, or None while we stand by."""
        return self._lease_epoch

    def held_lease(self) -> int:
        """Return our lease.

        Raises:
            LeaseLostError: Another consumer holds the archive, or none does.
        """
        return self._of(self._lease_epoch)

    @property
    def identity(self) -> OwnerMark:
        """The archive's identity, and those in whose place it has come."""
        return self._of(self._identity)

    @property
    def part(self) -> str:
        """What the parts are called that may be appended to now."""
        return self._of(self._parts).name

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
            raise ArchiveError(f"the archive in {self.root} is closed")
        catalogue, lock = self._catalogue, self._lock
        told = False
        while True:
            seen = await self._in_sql(catalogue.lease)
            locked = await self._in_sql(lock.acquire)
            if watch.may_take(seen, time.monotonic(), locked=locked):
                lease = await self._in_sql(catalogue.take_lease, seen, name, machine, locked=locked)
                if lease is not None:
                    break
            elif not told and on_standby is not None:
                told = True
                on_standby(seen.holder)
            # A standby that kept the lock would look like a living holder.
            await self._in_sql(lock.release)
            await asyncio.sleep(_POLL_S)
        self._lease_epoch = lease.epoch
        self._parts = ArchiveFiles(self.root, lease.epoch, self._part_bytes, self._part_s)
        lengths = await self._in_sql(catalogue.files)
        try:
            short = await self._in_files(cut_to_committed, self.root, lengths, lease.epoch)
        except OSError as error:
            raise ArchiveError(
                f"the archive in {self.root} cannot be brought to its committed lengths: {error}"
            ) from None
        # A file may have been compacted into another one since the lengths were read.
        lengths = await self._in_sql(catalogue.files)
        self.damaged = [path for path in short if path in lengths]
        self.watermarks = await self._in_sql(catalogue.watermarks)
        self.fingerprints = Fingerprints(bytes.fromhex(await self._in_sql(self._of(self._erasures).salt)))
        kept_s = await self._in_sql(catalogue.clock_s)
        self._clock = ArchiveClock(int(time.time()) if kept_s is None else kept_s)
        return lease.epoch

    async def beat(self) -> None:
        """Show that we live.

        Raises:
            LeaseLostError: Another consumer took over.
            ArchiveError: The catalogue cannot be written.
        """
        catalogue, lease_epoch = self._held()
        locked = self._lock is not None and await self._in_sql(self._lock.acquire)
        await self._in_sql(catalogue.beat, lease_epoch, locked=locked)

    async def seen(self, keys: Sequence[SeenKey]) -> dict[SeenKey, set[bytes]]:
        """Tell which (tenant, event_id) pairs were archived within the window, and with what content.

        Args:
            keys: What to look up.

        Returns:
            The fingerprints of those that were.
        """
        catalogue, _ = self._held()
        return await self._in_sql(catalogue.seen, keys) if keys else {}

    async def commit(self, added: CommitContent) -> None:
        """Add to the archive, all of it or nothing. Must not be cancelled half way.

        Args:
            added: Lines by folder (`parts.date_folder` or `parts.DEAD_LETTERS`), and what they mean.

        Raises:
            LeaseLostError: Another consumer took over; nothing was added.
            ArchiveError: The disk or the catalogue refused; nothing is known to have been added.
        """
        data = {folder: (b"".join(lines), len(lines)) for folder, lines in added.folders.items() if lines}
        async with self._writing:
            (catalogue, lease_epoch), parts = self._held(), self._of(self._parts)
            if parts.due:
                await self._in_files(parts.turn)
            try:
                lengths = await self._append(data, executor=self._files)
            except OSError as error:
                raise ArchiveError(f"the archive in {self.root} cannot be appended to: {error.strerror}") from None
            self._failpoints.hit("consumer.appended")
            change = CatalogueChange(lengths, parts.fresh, added, self._clock.now_s())
            await self._in_sql(catalogue.commit, lease_epoch, change)
            self._failpoints.hit("consumer.committed")
            parts.committed(lengths)
        for (producer, epoch), one in added.progress.items():
            reached = Position(epoch, one.seq)
            self.watermarks[producer] = max(self.watermarks.get(producer, reached), reached)

    async def seal(self, *, if_due: bool = False) -> None:
        """Let no file that holds something be appended to any more. Must not be cancelled half way.

        Args:
            if_due: Only if the parts are long or old enough.

        Raises:
            LeaseLostError: Another consumer took over, and has sealed them.
            ArchiveError: The catalogue refused.
        """
        async with self._writing:
            (catalogue, lease_epoch), parts = self._held(), self._of(self._parts)
            if if_due and not parts.due:
                return
            await self._in_files(parts.turn)
            await self._in_sql(catalogue.commit, lease_epoch, CatalogueChange(seal=True))

    async def sealed_files(self) -> dict[str, FileLength]:
        """List the files that never grow again.

        Returns:
            Their lengths by path.
        """
        catalogue, _ = self._held()
        return await self._in_sql(catalogue.files, sealed=True)

    async def growing_files(self) -> dict[str, FileLength]:
        """List the files that may still grow.

        Returns:
            Their lengths by path, as far as they are committed.
        """
        catalogue, _ = self._held()
        lengths = await self._in_sql(catalogue.files)
        return dict(lengths.items() - (await self.sealed_files()).items())

    def today(self) -> str:
        """Return the UTC date by which retention counts."""
        return self._days_ago(0)[:_DATE_LENGTH]

    async def retire(self, files: Mapping[str, FileLength], runs: Sequence[RetiredRun]) -> bool:
        """See `Retirements.retire`."""
        return await self._in_sql(self._of(self._retirements).retire, self._held()[1], files, runs)

    async def attempt(self, producer: str, first: Position, last: Position) -> Attempt:
        """See `Attempts.begin`."""
        return await self._in_sql(self._of(self._attempts).begin, self._held()[1], producer, first, last)

    async def mark(self, producer: str, event: Position, *, begun: bool) -> None:
        """See `Attempts.mark`."""
        await self._in_sql(self._of(self._attempts).mark, self._held()[1], producer, event, begun=begun)

    async def remember_place(self, where: str) -> None:
        """Remember where our mark is.

        Args:
            where: The place, in words.

        Raises:
            ArchiveError: The catalogue cannot be written.
        """
        if where != self.place:
            await self._in_sql(self._held()[0].remember, "place", where)
            self.place = where

    async def open_erasures(self, after: ErasureRequest | None = None) -> list[ErasureRequest]:
        """See `Erasures.open`."""
        return await self._in_sql(self._of(self._erasures).open, after)

    async def forgotten(self, days: int, user_ids: Collection[str]) -> LateEventFilter:
        """Read which of some users' late events are not to be archived.

        Args:
            days: For how long after an erasure is done.
            user_ids: Whose events came.

        Returns:
            The erased users among them.
        """
        return await self._in_sql(self._of(self._erasures).forgotten, user_ids, self._days_ago(days))

    async def replace(self, replacement: Replacement) -> bool:
        """See `Erasures.replace`."""
        return await self._in_sql(self._of(self._erasures).replace, self._held()[1], replacement)

    async def finish_erasures(self, models: Mapping[str, int]) -> None:
        """See `Erasures.finish`."""
        await self._in_sql(self._of(self._erasures).finish, self._held()[1], models, rfc3339_ms(time.time()))

    async def expire_erasures(self, days: int) -> int:
        """See `Erasures.expire`."""
        return await self._in_sql(self._of(self._erasures).expire, self._held()[1], self._days_ago(days))

    async def expire_seen(self, days: int, limit: int) -> tuple[int, float]:
        """Forget some event ids that are older than the window.

        Args:
            days: The window.
            limit: The most to forget now.

        Returns:
            How many were forgotten, and for how many seconds no commit could go on.
        """
        catalogue, lease_epoch = self._held()
        now_s = self._clock.now_s()
        before_s = now_s - days * 86_400

        def expire() -> tuple[int, float]:
            started_s = time.monotonic()
            catalogue.keep_clock(lease_epoch, now_s)
            return catalogue.expire_seen(lease_epoch, before_s, limit), time.monotonic() - started_s

        return await self._in_sql(expire)

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
                await self._in_sql(self._lock.release)

    async def close(self) -> None:
        """Release the lease, close the catalogue and end the threads."""
        try:
            await self.release()
        finally:
            catalogue, self._catalogue = self._catalogue, None
            self._attempts = self._erasures = self._retirements = None
            if catalogue is not None:
                await self._in_sql(catalogue.close)
            self._files.shutdown()
            self._sql.shutdown()

    def _days_ago(self, days: int) -> str:
        # Whichever clock is behind: a window may be too long, never too short.
        return rfc3339_ms(min(time.time(), self._clock.now_s()) - days * 86_400)

    def _open(self) -> None:
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ArchiveError(f"the archive {self.root} cannot be made: {error.strerror}") from None
        self._catalogue = Catalogue(self.root)
        self._identity = self._catalogue.mark()
        self.place = self._catalogue.setting("place")
        self._attempts = Attempts(self._catalogue.database, self._run)
        self._erasures = Erasures(self._catalogue.database)
        self._retirements = Retirements(self._catalogue.database)
        self._lock = HolderLock(self.root)

    def _append_now(self, data: Mapping[str, tuple[bytes, int]]) -> dict[str, FileLength]:
        return self._of(self._parts).append(data)

    def _of(self, thing: _T | None) -> _T:
        if thing is None:
            raise LeaseLostError("this consumer does not hold the archive's lease")
        return thing

    def _held(self) -> tuple[Catalogue, int]:
        return self._of(self._catalogue), self.held_lease()

    async def _in_sql(self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._sql, lambda: call(*args, **kwargs))

    async def _in_files(self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._files, lambda: call(*args, **kwargs))
