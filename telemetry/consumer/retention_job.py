"""The background step that removes the dates that retention no longer keeps, beside the commits.

Invariant, the order for each date: read the numbers of its lines, one catalogue transaction that retires them, then
remove the files. Killed before the transaction nothing has changed; killed after it, files are left that do not
count, and the next pass removes them.

    read -> [catalogue] -> files removed
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from telemetry.archive.archive import Archive
from telemetry.archive.retention import due, numbers_in
from telemetry.catalogue.commit import FileLength
from telemetry.counters import ConsumerCounters
from telemetry.erasure.rewriting import sweep
from telemetry.errors import ArchiveError, LeaseLostError
from telemetry.failpoints import Failpoints
from telemetry.notes import ConsumerObserver, DateRetired, RetentionBehind, notify
from telemetry.settings import ConsumerSettings
from telemetry.shielding import shield_until_done
from telemetry.wal.disk import sync_directory

_EVERY_S = 60.0


class RetentionJob:
    """Keeps an archive within its limits of age and size while we hold its lease.

    Args:
        archive: Held by us.
        settings: The limits.
        counters: Kept up to date here.
        observer: Told what was removed, and what keeps the archive too large.
        failpoints: Where a drill may strike.
    """

    def __init__(
        self,
        archive: Archive,
        settings: ConsumerSettings,
        counters: ConsumerCounters,
        observer: ConsumerObserver | None,
        failpoints: Failpoints,
    ) -> None:
        self._archive = archive
        self._settings = settings
        self._counters = counters
        self._observer = observer
        self._failpoints = failpoints
        # What was told last, so that it is told once.
        self._told = ""

    async def run(self) -> None:
        """Remove what is due, once a minute, until cancelled.

        Raises:
            LeaseLostError: Another consumer holds the archive.
        """
        if not (self._settings.retention_days or self._settings.retention_bytes):
            await asyncio.Event().wait()
        with ThreadPoolExecutor(1, thread_name_prefix="archive-retention") as thread:
            while True:
                try:
                    await self.step(thread)
                except LeaseLostError:
                    raise
                except ArchiveError as error:
                    self._behind(str(error))
                await asyncio.sleep(_EVERY_S)

    async def step(self, thread: ThreadPoolExecutor) -> None:
        """Remove what is due now.

        Args:
            thread: Where files are read.

        Raises:
            LeaseLostError: Another consumer holds the archive.
            ArchiveError: A date that is due cannot be read, or the catalogue not be written.
        """
        archive, settings = self._archive, self._settings
        loop = asyncio.get_running_loop()
        await shield_until_done(loop.run_in_executor(thread, sweep, archive.root, archive.held_lease(), archive.part))
        await shield_until_done(loop.run_in_executor(thread, _remove_empty, archive.root, archive.today()))
        growing = await archive.growing_files()
        lengths = {**await archive.sealed_files(), **growing}
        plan = due(lengths, growing.keys(), archive.today(), settings.retention_days, settings.retention_bytes)
        failed: ArchiveError | None = None
        for day in plan.days:
            files = {path: length for path, length in lengths.items() if path.startswith(f"date={day}/")}
            try:
                await shield_until_done(self._retire(day, files, thread))
            except LeaseLostError:
                raise
            except ArchiveError as error:
                # A damaged date stays, and keeps no other one.
                failed = failed or error
        if failed is not None:
            raise failed
        if plan.excess_bytes:
            self._behind(
                f"the archive is {plan.excess_bytes} bytes over RECOLLECT_ARCHIVE_RETENTION_BYTES, and only compacted "
                "dates go by size: run `recollect archive compact`"
            )
        else:
            self._told = ""

    async def _retire(self, day: str, files: dict[str, FileLength], thread: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        runs = await loop.run_in_executor(thread, numbers_in, self._archive.root, files, day)
        self._failpoints.hit("retention.read")
        if not await self._archive.retire(files, runs):
            # It was compacted or rewritten meanwhile; the next pass sees what took its place.
            return
        self._failpoints.hit("retention.committed")
        await loop.run_in_executor(thread, _remove, self._archive.root, list(files))
        events = sum(run.size for run in runs)
        self._counters.retired += events
        notify(self._observer, DateRetired(day, events, sum(length.size_bytes for length in files.values())))

    def _behind(self, why: str) -> None:
        self._counters.last_error = why
        if why != self._told:
            self._told = why
            notify(self._observer, RetentionBehind(why))


def _remove(root: Path, paths: list[str]) -> None:
    """Remove files that do not count any more; what cannot be removed the next sweep takes."""
    for path in paths:
        with suppress(OSError):
            (root / path).unlink()
    for folder in {(root / path).parent for path in paths}:
        with suppress(OSError):
            sync_directory(folder)
            # Only if nothing else is in it.
            folder.rmdir()
            sync_directory(root)


def _remove_empty(root: Path, today: str) -> None:
    """Remove the folders of past dates whose files a sweep has taken."""
    for folder in root.glob("date=*"):
        if folder.name < f"date={today}":
            with suppress(OSError):
                folder.rmdir()
