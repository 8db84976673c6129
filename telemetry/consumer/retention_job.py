"""The background job that removes the dates that retention no longer keeps, beside the commits.

Invariant, the order for each date: read the sequence numbers of its lines, retire them in one catalogue transaction,
then remove the files. If the process dies after the transaction, the next pass removes the files.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from telemetry.archive.archive import Archive
from telemetry.archive.archive_files import DATE_PREFIX
from telemetry.archive.retention import due_dates, retire_files, retired_runs
from telemetry.archive.uncommitted_files import remove_uncommitted
from telemetry.catalogue.commit import FileLength
from telemetry.consumer.context import ConsumerContext
from telemetry.errors import ArchiveError, LeaseLostError
from telemetry.notes import DateRetired, RetentionBehind
from telemetry.shielding import shield_until_done
from telemetry.wal.disk import sync_directory

_EVERY_S: Final = 60.0

_P = ParamSpec("_P")
_T = TypeVar("_T")


class RetentionJob:
    """Keeps an archive within its limits of age and size while its lease is held."""

    def __init__(self, archive: Archive, context: ConsumerContext) -> None:
        self._archive = archive
        self._context = context
        self._thread: ThreadPoolExecutor | None = None
        self._last_report = ""

    async def run(self) -> None:
        """Remove due dates, once a minute, until cancelled."""
        settings = self._context.settings
        if not (settings.retention_days or settings.retention_bytes):
            await asyncio.Event().wait()
        with ThreadPoolExecutor(1, thread_name_prefix="archive-retention") as self._thread:
            while True:
                try:
                    await self.remove_due()
                except LeaseLostError:
                    raise
                except ArchiveError as error:
                    self._report_behind(str(error))
                await asyncio.sleep(_EVERY_S)

    async def remove_due(self) -> None:
        """Remove the dates that are due now.

        Raises:
            LeaseLostError: Another consumer holds the archive.
            ArchiveError: A date that is due cannot be read, or the catalogue not be written.
        """
        archive, settings = self._archive, self._context.settings
        await shield_until_done(self._in_thread(remove_uncommitted, archive.root, archive.held_lease(), archive.part))
        await shield_until_done(self._in_thread(_remove_empty, archive.root, archive.today()))
        growing = await archive.growing_files()
        lengths = {**await archive.sealed_files(), **growing}
        due = due_dates(lengths, growing.keys(), archive.today(), settings.retention_days, settings.retention_bytes)
        failed: ArchiveError | None = None
        for day in due.days:
            folder = f"{DATE_PREFIX}{day}/"
            files = {path: length for path, length in lengths.items() if path.startswith(folder)}
            try:
                await shield_until_done(self._retire(day, files))
            except LeaseLostError:
                raise
            except ArchiveError as error:
                # A damaged date stays, and does not keep the others.
                failed = failed or error
        if failed is not None:
            raise failed
        if due.excess_bytes:
            self._report_behind(
                f"The archive is {due.excess_bytes} bytes over RECOLLECT_ARCHIVE_RETENTION_BYTES, and only compacted "
                "dates are removed by size: run `recollect archive compact`."
            )
        else:
            self._last_report = ""

    async def _retire(self, day: str, files: dict[str, FileLength]) -> None:
        archive = self._archive
        runs = await self._in_thread(retired_runs, archive.root, files, day)
        self._context.failpoints.hit("retention.read")
        if not await archive.write_catalogue(retire_files, files, runs):
            # It was compacted or rewritten meanwhile; the next pass sees the new files.
            return
        self._context.failpoints.hit("retention.committed")
        await self._in_thread(_remove, archive.root, list(files))
        events = sum(run.size for run in runs)
        self._context.counters.retired += events
        self._context.notify(DateRetired(day, events, sum(length.size_bytes for length in files.values())))

    async def _in_thread(self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: call(*args, **kwargs))

    def _report_behind(self, why: str) -> None:
        self._context.counters.last_error = why
        if why != self._last_report:
            self._last_report = why
            self._context.notify(RetentionBehind(why))


def _remove(root: Path, paths: list[str]) -> None:
    """Remove files that no longer count; the next pass removes those that cannot be removed now."""
    for path in paths:
        with suppress(OSError):
            (root / path).unlink()
    for folder in {(root / path).parent for path in paths}:
        with suppress(OSError):
            sync_directory(folder)
            # Only if it is empty.
            folder.rmdir()
            sync_directory(root)


def _remove_empty(root: Path, today: str) -> None:
    """Remove the empty folders of past dates."""
    for folder in root.glob(f"{DATE_PREFIX}*"):
        if folder.name < f"{DATE_PREFIX}{today}":
            with suppress(OSError):
                folder.rmdir()
