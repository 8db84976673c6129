"""The background step that forgets users: file by file, beside the commits.

Invariant: an erasure is done only when no file holds a line of the user from before it and everybody else who holds
users has forgotten this one. Whatever dies on the way, the erasure is still open in the catalogue, and the
next holder of the lease begins again; nothing in it is wrong to do twice.

Files are read and written in a thread of their own; a commit waits for one short transaction per file at most.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from telemetry.account import Erasure, FileLength
from telemetry.archive import Archive
from telemetry.counters import ConsumerCounters
from telemetry.erasure import Forgetter
from telemetry.errors import ArchiveError, LeaseLostError
from telemetry.notes import ConsumerObserver, EraseFailed, Forgot, tell
from telemetry.parts import sync_directory
from telemetry.rewriting import Users, rewrite, sweep
from telemetry.uninterrupted import finish

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 30.0
# Each line that may be one of theirs is looked at for all of them at once.
_AT_ONCE = 64


class Eraser:
    """Works off the open erasures of an archive while we hold its lease.

    Args:
        archive: Held by us.
        forgetters: Who else holds users.
        counters: Kept up to date here.
        observer: Told what was forgotten, and what failed.
    """

    def __init__(
        self,
        archive: Archive,
        forgetters: Sequence[Forgetter],
        counters: ConsumerCounters,
        observer: ConsumerObserver | None,
    ) -> None:
        self._archive = archive
        self._forgetters = forgetters
        self._counters = counters
        self._observer = observer
        self._wake = asyncio.Event()
        # By erase_id: from how many models, per forgetter that is through.
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
                try:
                    left = await self._work_off(thread)
                except LeaseLostError:
                    raise
                except ArchiveError as error:
                    left = True
                    self._failed("archive", str(error))
                if left:
                    # What failed is tried again, soon at first; somebody new is not kept waiting for it.
                    with suppress(TimeoutError):
                        async with asyncio.timeout(pause_s):
                            await self._wake.wait()
                    pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                else:
                    pause_s = _FIRST_PAUSE_S
                    await self._wake.wait()

    async def _work_off(self, thread: ThreadPoolExecutor) -> bool:
        """Forget everybody who is to be forgotten by now; returns whether somebody is left."""
        loop = asyncio.get_running_loop()
        erasures = await self._archive.open_erasures()
        if not erasures:
            return False
        await finish(self._archive.seal())
        for start in range(0, len(erasures), _AT_ONCE):
            await self._rewrite_all(erasures[start : start + _AT_ONCE], thread)
        # Nothing is done while a line of theirs lies in a file that merely does not count.
        archive = self._archive
        left = not await finish(loop.run_in_executor(thread, sweep, archive.root, self._lease_epoch(), archive.part))
        for erasure in [] if left else erasures:
            models = await self._tell_others(erasure)
            if models is None:
                left = True
                continue
            await finish(self._archive.finish_erasure(erasure.erase_id, models))
            self._told.pop(erasure.erase_id, None)
            self._counters.forgotten += 1
            tell(self._observer, Forgot(erasure.erase_id, models))
        return left

    async def _rewrite_all(self, erasures: Sequence[Erasure], thread: ThreadPoolExecutor) -> None:
        users = Users(erasures)
        looked_at: dict[str, FileLength] = {}
        failed: ArchiveError | None = None
        # Files may take the place of others while we are at it; those are looked at too.
        while todo := (await self._archive.sealed_files()).items() - looked_at.items():
            for path, length in sorted(todo):
                try:
                    clean = await finish(self._rewrite(path, length, users, thread))
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
        self, path: str, length: FileLength, users: Users, thread: ThreadPoolExecutor
    ) -> tuple[str, FileLength] | None:
        """Rewrite one file if need be; returns the clean one, or None if somebody else replaced it."""
        root, lease_epoch = self._archive.root, self._lease_epoch()
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

    def _lease_epoch(self) -> int:
        lease_epoch = self._archive.lease_epoch
        if lease_epoch is None:
            raise LeaseLostError("this consumer does not hold the archive's lease")
        return lease_epoch

    async def _tell_others(self, erasure: Erasure) -> int | None:
        """Ask everybody else to forget a user; returns from how many models, or None if somebody could not."""
        told = self._told.setdefault(erasure.erase_id, {})
        for forgetter in self._forgetters:
            if forgetter.name in told:
                continue
            try:
                told[forgetter.name] = await finish(forgetter.forget(erasure.user_id))
            except Exception as error:  # noqa: BLE001 - a forgetter is somebody else's code; it is asked again
                self._failed(forgetter.name, f"{type(error).__name__}: {error}")
        return sum(told.values()) if len(told) == len(self._forgetters) else None

    def _failed(self, where: str, error: str) -> None:
        self._counters.last_error = error
        tell(self._observer, EraseFailed(where, error))


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
        sync_directory(path.parent)
