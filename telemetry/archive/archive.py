"""The archive: dated JSON lines that hold every event once.

Invariant, the order of a commit: append and fdatasync the lines, then one catalogue transaction that makes them count,
and only then is anything acknowledged. A crash between the two leaves a tail that the next lease holder cuts off; the
events come again from the stream. Commits and seals exclude each other; a sealed file may be read, rewritten or
compacted concurrently. Files are written through aiofiles in one thread, the catalogue in another.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Concatenate, Final, ParamSpec, TypeVar

from aiofiles.os import wrap

from telemetry.archive.archive_files import ArchiveFiles, cut_to_committed
from telemetry.archive.standby import Standby
from telemetry.batch import Position
from telemetry.catalogue.archive_clock import ArchiveClock
from telemetry.catalogue.catalogue import Catalogue
from telemetry.catalogue.catalogue_file import Database
from telemetry.catalogue.commit import CatalogueChange, CommitContent, FileLength, SeenKey
from telemetry.catalogue.lease import HolderLock, Lease
from telemetry.errors import ArchiveError, CatalogueBusyError, LeaseLostError
from telemetry.failpoints import Failpoints
from telemetry.fingerprint import Fingerprints
from telemetry.ids import rfc3339_ms
from telemetry.notes import Observer, notify
from telemetry.stream.namespace_owner import OwnerMark

_POLL_S: Final = 0.2
# The setting with the Redis namespace, under its name in existing catalogues.
_NAMESPACE: Final = "place"
_DATE_LENGTH: Final = len("2026-11-21")

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Archive:
    """One consumer's access to an archive.

    Args:
        part_bytes: Files are rotated once one is this long.
        part_s: Files are rotated once they are this old.
        wall_clock: Returns seconds since 1970.

    Attributes:
        watermarks: How far each producer is archived.
        damaged: Paths of files that were shorter than their committed length when the lease was acquired.
        fingerprints: Computes those of this archive.
        namespace: The Redis namespace that was marked last.
    """

    def __init__(
        self,
        root: Path,
        *,
        part_bytes: int = 64 * 1024 * 1024,
        part_s: float = 900.0,
        failpoints: Failpoints | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.root = root
        self._part_bytes = part_bytes
        self._part_s = part_s
        self._failpoints = failpoints or Failpoints()
        self._wall_clock = wall_clock
        self._writing = asyncio.Lock()
        self._file_thread = ThreadPoolExecutor(1, thread_name_prefix="archive-files")
        self._catalogue_thread = ThreadPoolExecutor(1, thread_name_prefix="archive-catalogue")
        self._catalogue: Catalogue | None = None
        self._files: ArchiveFiles | None = None
        self._lock: HolderLock | None = None
        self._lease_epoch: int | None = None
        self._identity: OwnerMark | None = None
        self._clock = ArchiveClock(0)
        self.fingerprints = Fingerprints()
        self.namespace: str | None = None
        self.watermarks: dict[str, Position] = {}
        self.damaged: list[str] = []

    def __repr__(self) -> str:
        return f"<Archive {self.root} lease={self._lease_epoch}>"

    def held_lease(self) -> int:
        """Return the epoch of this consumer's lease; raises LeaseLostError if it holds none."""
        return _require_held(self._lease_epoch)

    @property
    def identity(self) -> OwnerMark:
        """The archive's identity and those it replaces."""
        return _require_held(self._identity)

    @property
    def part(self) -> str:
        """The name of the parts that may be appended to now."""
        return _require_held(self._files).name

    @property
    def part_lengths(self) -> dict[str, int]:
        """The committed bytes of the parts that may be appended to now, by path."""
        return {path: length.size_bytes for path, length in _require_held(self._files).lengths.items()}

    async def acquire(self, takeover_s: float, observer: Observer | None = None) -> int:
        """Wait for the lease, acquire it, and bring the files to their committed lengths.

        Args:
            takeover_s: How long another holder's heartbeat must stand still.
            observer: Told of a wait, once, and of frozen processes that were ended.

        Returns:
            The epoch of the lease.
        """
        standby = Standby(self.root, takeover_s)
        while True:
            lease = await self._in_catalogue_thread(self._try_acquire, standby)
            for note in standby.take_notes():
                notify(observer, note)
            if lease is not None:
                break
            await asyncio.sleep(_POLL_S)
        catalogue, epoch = _require_held(self._catalogue), lease.epoch
        self._lease_epoch = epoch
        self._files = ArchiveFiles(self.root, epoch, self._part_bytes, self._part_s)
        lengths = await self._in_catalogue_thread(catalogue.files)
        try:
            short = await self._in_file_thread(cut_to_committed, self.root, lengths, epoch)
        except OSError as error:
            raise ArchiveError(
                f"The archive cannot be cut to its committed lengths: {error.filename}: {error.strerror}."
            ) from None
        # A file may have been compacted into another one since the lengths were read.
        lengths = await self._in_catalogue_thread(catalogue.files)
        self.damaged = [path for path in short if path in lengths]
        self.watermarks = await self._in_catalogue_thread(catalogue.watermarks)
        salt = await self._in_catalogue_thread(catalogue.setting, "salt")
        self.fingerprints = Fingerprints(bytes.fromhex(salt or ""))
        stored_s = await self._in_catalogue_thread(catalogue.clock_s)
        self._clock = ArchiveClock(int(self._wall_clock()) if stored_s is None else stored_s)
        return epoch

    def _try_acquire(self, standby: Standby) -> Lease | None:
        if standby.is_blocked():
            return None
        try:
            if self._catalogue is None or self._lock is None:
                self._open()
            return standby.try_acquire(_require_held(self._catalogue), _require_held(self._lock))
        except CatalogueBusyError as error:
            standby.busy(error)
            return None

    async def beat(self) -> None:
        """Renew the lease's heartbeat."""
        catalogue, lease_epoch = _require_held(self._catalogue), self.held_lease()
        locked = self._lock is not None and await self._in_catalogue_thread(self._lock.acquire)
        await self._in_catalogue_thread(catalogue.lease.beat, lease_epoch, locked=locked)

    async def seen_fingerprints(self, keys: Sequence[SeenKey]) -> dict[SeenKey, set[bytes]]:
        """Read the fingerprints of events that were archived within the window; unknown ones are left out."""
        return await self._in_catalogue_thread(_require_held(self._catalogue).seen_fingerprints, keys) if keys else {}

    async def commit(self, added: CommitContent) -> None:
        """Add to the archive, all of it or nothing. Must not be cancelled half way.

        Raises:
            LeaseLostError: Another consumer holds the lease; nothing was added.
            ArchiveError: The disk or the catalogue refused; nothing is known to have been added.
        """
        data = {folder: (b"".join(lines), len(lines)) for folder, lines in added.folders.items() if lines}
        async with self._writing:
            catalogue, files = _require_held(self._catalogue), _require_held(self._files)
            lease_epoch = self.held_lease()
            if files.rotation_due:
                await self._in_file_thread(files.rotate)
            try:
                lengths = await self._in_file_thread(files.append, data)
            except OSError as error:
                raise ArchiveError(f"The archive in {self.root} cannot be appended to: {error.strerror}.") from None
            self._failpoints.hit("consumer.appended")
            change = CatalogueChange(lengths, files.is_fresh, added, self._clock.now_s())
            await self._in_catalogue_thread(catalogue.commit, lease_epoch, change)
            self._failpoints.hit("consumer.committed")
            files.committed(lengths)
        for (producer, epoch), progress in added.progress.items():
            reached = Position(epoch, progress.seq)
            self.watermarks[producer] = max(self.watermarks.get(producer, reached), reached)

    async def seal(self, *, if_due: bool = False) -> None:
        """Seal every file that has lines, or only if rotation is due. Must not be cancelled half way."""
        async with self._writing:
            catalogue, files = _require_held(self._catalogue), _require_held(self._files)
            lease_epoch = self.held_lease()
            if if_due and not files.rotation_due:
                return
            await self._in_file_thread(files.rotate)
            await self._in_catalogue_thread(catalogue.commit, lease_epoch, CatalogueChange(seal=True))

    async def sealed_files(self) -> dict[str, FileLength]:
        """List the files that never grow again, by path."""
        return await self._in_catalogue_thread(_require_held(self._catalogue).files, sealed=True)

    async def growing_files(self) -> dict[str, FileLength]:
        """List the files that may still grow, by path, with their committed lengths."""
        lengths = await self._in_catalogue_thread(_require_held(self._catalogue).files)
        return dict(lengths.items() - (await self.sealed_files()).items())

    async def read_catalogue(
        self, call: Callable[Concatenate[Database, _P], _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        """Run a read of the catalogue in its thread: `call(database, *args)`."""
        return await self._in_catalogue_thread(call, _require_held(self._catalogue).database, *args, **kwargs)

    async def write_catalogue(
        self, call: Callable[Concatenate[Database, int, _P], _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        """Run a write of the catalogue in its thread: `call(database, lease_epoch, *args)`."""
        database = _require_held(self._catalogue).database
        return await self._in_catalogue_thread(call, database, self.held_lease(), *args, **kwargs)

    async def set_namespace(self, where: str) -> None:
        """Store which Redis namespace has this archive's mark."""
        if where != self.namespace:
            await self._in_catalogue_thread(_require_held(self._catalogue).set_setting, _NAMESPACE, where)
            self.namespace = where

    async def expire_seen(self, days: int, limit: int) -> tuple[int, float]:
        """Delete some seen events that are older than the window.

        Returns:
            How many were deleted, and for how many seconds no commit could go on.
        """
        catalogue, lease_epoch, now_s = _require_held(self._catalogue), self.held_lease(), self._clock.now_s()

        def expire() -> tuple[int, float]:
            started_s = time.monotonic()
            catalogue.store_clock(lease_epoch, now_s)
            expired = catalogue.expire_seen(lease_epoch, now_s - days * 86_400, limit)
            return expired, time.monotonic() - started_s

        return await self._in_catalogue_thread(expire)

    def days_ago(self, days: int) -> str:
        """Return the time some days ago, RFC 3339, by the slower clock, so that a window is never too short."""
        return rfc3339_ms(min(self._wall_clock(), self._clock.now_s()) - days * 86_400)

    def today(self) -> str:
        """Return the UTC date by which retention counts."""
        return self.days_ago(0)[:_DATE_LENGTH]

    async def release(self) -> None:
        """Release the lease, so that a successor may start at once; does nothing without a lease."""
        lease_epoch, self._lease_epoch = self._lease_epoch, None
        if self._files is not None:
            await self._in_file_thread(self._files.close)
            self._files = None
        try:
            if lease_epoch is not None and self._catalogue is not None:
                await self._in_catalogue_thread(self._catalogue.lease.release, lease_epoch)
        finally:
            if self._lock is not None:
                await self._in_catalogue_thread(self._lock.release)

    async def close(self) -> None:
        """Release the lease, close the catalogue and end the threads."""
        try:
            await self.release()
        finally:
            catalogue, self._catalogue = self._catalogue, None
            if catalogue is not None:
                await self._in_catalogue_thread(catalogue.close)
            self._file_thread.shutdown()
            self._catalogue_thread.shutdown()

    def _open(self) -> None:
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ArchiveError(f"The archive {self.root} cannot be made: {error.strerror}.") from None
        catalogue = Catalogue(self.root, self._failpoints)
        try:
            self._identity = catalogue.load_or_create_mark()
            self.namespace = catalogue.setting(_NAMESPACE)
        except BaseException:
            catalogue.close()
            raise
        self._catalogue, self._lock = catalogue, HolderLock(self.root)

    async def _in_catalogue_thread(self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._catalogue_thread, lambda: call(*args, **kwargs))

    async def _in_file_thread(self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return await wrap(call)(*args, executor=self._file_thread, **kwargs)


def _require_held(thing: _T | None) -> _T:
    """Return what exists only while the lease is held."""
    if thing is None:
        raise LeaseLostError("This consumer does not hold the archive's lease.")
    return thing
