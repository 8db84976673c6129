"""The background step that erases users, in rounds: all whose erasure was requested by then, together.

Invariants:

- An erasure is done only when no file holds a line of the user from before it and every other holder of users (a
  `UserEraser`) has forgotten this one. Whatever dies on the way, the erasure is still open in the catalogue, and the
  next holder of the lease begins again; nothing in it is wrong to do twice.
- A round reads each file once, and rewrites each file and each model that holds one of its users once, however many
  users it is about. LineMatcher whom nothing holds cause no file to be sealed or written.
- Rounds take a fifth of the time at most, and those that erase a user keep an interval: erase requests
  cannot be turned into more work than that.

Files are read and written in a thread of their own; a commit waits for one short transaction per file at most.
"""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from telemetry.archive.archive import Archive
from telemetry.catalogue.commit import ErasureRequest, FileLength
from telemetry.counters import ConsumerCounters
from telemetry.erasure.erasure import UserEraser
from telemetry.erasure.erasure_requests import AT_ONCE, EXPIRED_AT_ONCE
from telemetry.erasure.rewriting import LineMatcher, holds, rewrite, sweep
from telemetry.errors import ArchiveError, LeaseLostError
from telemetry.notes import ConsumerObserver, EraseFailed, UserErased, notify
from telemetry.settings import ConsumerSettings
from telemetry.shielding import shield_until_done
from telemetry.wal.disk import sync_directory

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 30.0
# After a round of so many seconds, as many times that without one.
_REST = 4
# Receipts that are of no use any more go even without a request to erase.
_IDLE_S = 3600.0
_BETWEEN_STEPS_S = 0.05


class ErasureJob:
    """Works off the open erasures of an archive while we hold its lease.

    Args:
        archive: Held by us.
        user_erasers: Who else holds users.
        settings: Pauses, and for how long late events are expected.
        counters: Kept up to date here.
        observer: Told what was forgotten, and what failed.
    """

    def __init__(
        self,
        archive: Archive,
        user_erasers: Sequence[UserEraser],
        settings: ConsumerSettings,
        counters: ConsumerCounters,
        observer: ConsumerObserver | None,
    ) -> None:
        self._archive = archive
        self._user_erasers = user_erasers
        self._settings = settings
        self._counters = counters
        self._observer = observer
        self._wake = asyncio.Event()
        # By user_eraser that is through: from how many models, by erase_id.
        self._told: dict[str, dict[str, int]] = {}

    def wake(self) -> None:
        """Say that somebody is to be forgotten."""
        self._wake.set()

    async def run(self) -> None:
        """Forget until cancelled.

        Raises:
            LeaseLostError: Another consumer holds the archive, and goes on with it.
        """
        pause_s = _FIRST_PAUSE_S
        with ThreadPoolExecutor(1, thread_name_prefix="archive-eraser") as thread:
            while True:
                self._wake.clear()
                started_s = time.monotonic()
                before = self._counters.users_erased
                try:
                    left = await self._work_off(thread)
                    expired = EXPIRED_AT_ONCE
                    while expired == EXPIRED_AT_ONCE:
                        expired = await shield_until_done(self._archive.expire_erasures(self._settings.seen_days))
                        # Commits take their turn.
                        await asyncio.sleep(_BETWEEN_STEPS_S)
                except LeaseLostError:
                    raise
                except ArchiveError as error:
                    left = True
                    self._failed("archive", str(error))
                rest_s = _REST * (time.monotonic() - started_s)
                if self._counters.users_erased > before:
                    rest_s = max(rest_s, self._settings.erase_interval_s)
                await asyncio.sleep(rest_s)
                # What failed is tried again, soon at first; a new request is not kept waiting for it.
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause_s if left else _IDLE_S):
                        await self._wake.wait()
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S) if left else _FIRST_PAUSE_S

    async def _work_off(self, thread: ThreadPoolExecutor) -> bool:
        """Erase all users who are to be erased by now; returns whether any are left."""
        left = False
        failed: ArchiveError | None = None
        erasures: list[ErasureRequest] = []
        # What is asked for meanwhile is the next round's: else one request after the other could keep this one going.
        more = True
        while more and (erasures := await self._archive.open_erasures(erasures[-1] if erasures else None)):
            more = len(erasures) == AT_ONCE
            try:
                left = await self._erase(erasures, thread) or left
            except LeaseLostError:
                raise
            except ArchiveError as error:
                failed = failed or error
        if failed is not None:
            raise failed
        return left

    async def _erase(self, erasures: Sequence[ErasureRequest], thread: ThreadPoolExecutor) -> bool:
        """Erase some users; returns whether any are left."""
        archive = self._archive
        await self._rewrite_all(LineMatcher(erasures), thread)
        # Nothing is done while a line of theirs lies in a file that merely does not count.
        loop = asyncio.get_running_loop()
        if not await shield_until_done(
            loop.run_in_executor(thread, sweep, archive.root, archive.held_lease(), archive.part)
        ):
            return True
        for user_eraser in self._user_erasers:
            await self._tell(user_eraser, erasures)
        done = [erasure for erasure in erasures if all(erasure.erase_id in told for told in self._told_by_forgetter())]
        models = {one.erase_id: sum(told[one.erase_id] for told in self._told_by_forgetter()) for one in done}
        if models:
            await shield_until_done(archive.finish_erasures(models))
        for erase_id, count in models.items():
            for told in self._told.values():
                told.pop(erase_id, None)
            self._counters.users_erased += 1
            notify(self._observer, UserErased(erase_id, count))
        return len(models) < len(erasures)

    def _told_by_forgetter(self) -> list[dict[str, int]]:
        return [self._told.setdefault(user_eraser.name, {}) for user_eraser in self._user_erasers]

    async def _seal(self, users: LineMatcher, thread: ThreadPoolExecutor) -> None:
        """Seal the files that still grow if one of them holds something of the users; what comes later is refused."""
        loop = asyncio.get_running_loop()
        for path, length in (await self._archive.growing_files()).items():
            try:
                found = await shield_until_done(
                    loop.run_in_executor(thread, holds, self._archive.root, path, length, users)
                )
            except ArchiveError:
                # It was sealed and replaced meanwhile, or is damaged, which the rewriting tells.
                found = True
            if found:
                await shield_until_done(self._archive.seal())
                return

    async def _rewrite_all(self, users: LineMatcher, thread: ThreadPoolExecutor) -> None:
        await self._seal(users, thread)
        looked_at: dict[str, FileLength] = {}
        failed: ArchiveError | None = None
        # Files may take the place of others while we are at it; those are looked at too.
        while todo := (await self._archive.sealed_files()).items() - looked_at.items():
            for path, length in sorted(todo):
                try:
                    clean = await shield_until_done(self._rewrite(path, length, users, thread))
                except LeaseLostError:
                    raise
                except ArchiveError as error:
                    # One damaged file keeps the erasure open, and the lines in the others go all the same.
                    failed = failed or error
                    clean = path, length
                if clean is not None:
                    looked_at[clean[0]] = clean[1]
        if failed is not None:
            raise failed

    async def _rewrite(
        self, path: str, length: FileLength, users: LineMatcher, thread: ThreadPoolExecutor
    ) -> tuple[str, FileLength] | None:
        """Rewrite one file if need be; returns the clean one, or None if somebody else replaced it."""
        root, lease_epoch = self._archive.root, self._archive.held_lease()
        loop = asyncio.get_running_loop()
        try:
            replacement = await loop.run_in_executor(thread, rewrite, root, lease_epoch, path, length, users)
        except ArchiveError:
            if path in await self._archive.sealed_files():
                raise
            # Somebody compacted it while it was read; what took its place comes next.
            return None
        if replacement is None:
            return path, length
        done = await self._archive.replace(replacement)
        # Which of the two does not count is only known here: after a failure the next holder of the lease removes it.
        await loop.run_in_executor(thread, _remove, root / (path if done else replacement.new[0]))
        if not done:
            return None
        self._counters.erased += sum(replacement.erased.values())
        return replacement.new

    async def _tell(self, user_eraser: UserEraser, erasures: Sequence[ErasureRequest]) -> None:
        """Ask a user_eraser to forget those users of whom it has not been told."""
        told = self._told.setdefault(user_eraser.name, {})
        waiting = [erasure for erasure in erasures if erasure.erase_id not in told]
        if not waiting:
            return
        try:
            # Cut short if we stop: it may wait for a disk of its own for ever, and is asked again.
            models = await user_eraser.erase({erasure.user_id for erasure in waiting})
        except Exception as error:  # noqa: BLE001 - a user_eraser may raise anything; it is asked again
            self._failed(user_eraser.name, f"{type(error).__name__}: {error}")
        else:
            told.update((erasure.erase_id, models.get(erasure.user_id, 0)) for erasure in waiting)

    def _failed(self, where: str, error: str) -> None:
        self._counters.last_error = error
        notify(self._observer, EraseFailed(where, error))


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
        sync_directory(path.parent)
