"""The background job that erases users, in rounds: all requests open when the round begins, together.

Invariants: an erasure is done only when no file holds a line that falls under it and every `UserEraser` has erased the
user; until then the request is open in the catalogue, and every step may be repeated by the next lease holder. A round
reads each file once and rewrites each file or model that holds one of its users once, however many users there are.
Rounds take a fifth of the time at most, and those that erased a user keep an interval, so requests cannot cause more
work. Files are handled in a thread of their own; a commit waits for one short transaction per file at most.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from telemetry.archive.archive import Archive
from telemetry.archive.uncommitted_files import remove_uncommitted
from telemetry.catalogue.commit import ErasureRequest, FileLength
from telemetry.consumer.context import ConsumerContext
from telemetry.erasure.erasure import UserEraser
from telemetry.erasure.erasure_requests import (
    EXPIRED_PER_CALL,
    REQUESTS_PER_READ,
    expire_requests,
    finish_requests,
    open_requests,
    replace_file,
)
from telemetry.erasure.line_matcher import LineMatcher
from telemetry.erasure.rewriting import contains_users, rewrite
from telemetry.errors import ArchiveError, LeaseLostError
from telemetry.ids import rfc3339_ms
from telemetry.notes import EraseFailed, UserErased
from telemetry.shielding import shield_until_done
from telemetry.wal.disk import sync_directory

_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 30.0
# The rest after a round, as a multiple of its duration.
_REST_PER_ROUND: Final = 4
# Receipts expire even without a request to erase.
_IDLE_S: Final = 3600.0
_BETWEEN_STEPS_S: Final = 0.05

_P = ParamSpec("_P")
_T = TypeVar("_T")


class ErasureJob:
    """Carries out the open erasure requests of an archive while its lease is held."""

    def __init__(self, archive: Archive, user_erasers: Sequence[UserEraser], context: ConsumerContext) -> None:
        self._archive = archive
        self._user_erasers = user_erasers
        self._context = context
        self._wake = asyncio.Event()
        # By name of the `UserEraser` and erase_id of what it has done: from how many models it removed the user.
        self._done: dict[str, dict[str, int]] = {user_eraser.name: {} for user_eraser in user_erasers}
        self._thread: ThreadPoolExecutor | None = None

    def wake(self) -> None:
        """Start a round soon: a request was committed."""
        self._wake.set()

    async def run(self) -> None:
        """Erase until cancelled."""
        pause_s = _FIRST_PAUSE_S
        with ThreadPoolExecutor(1, thread_name_prefix="archive-eraser") as self._thread:
            while True:
                self._wake.clear()
                started_s = time.monotonic()
                before = self._context.counters.users_erased
                try:
                    left = await self._round()
                    await self._expire_receipts()
                except LeaseLostError:
                    raise
                except ArchiveError as error:
                    left = True
                    self._failed("archive", str(error))
                rest_s = _REST_PER_ROUND * (time.monotonic() - started_s)
                if self._context.counters.users_erased > before:
                    rest_s = max(rest_s, self._context.settings.erase_interval_s)
                await asyncio.sleep(rest_s)
                # Failures are retried, soon at first; a new request does not wait for the pause.
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause_s if left else _IDLE_S):
                        await self._wake.wait()
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S) if left else _FIRST_PAUSE_S

    async def _expire_receipts(self) -> None:
        archive = self._archive
        expired = EXPIRED_PER_CALL
        while expired == EXPIRED_PER_CALL:
            done_before = archive.days_ago(self._context.settings.seen_days)
            expired = await shield_until_done(archive.write_catalogue(expire_requests, done_before))
            # The pause lets commits use the catalogue's thread.
            await asyncio.sleep(_BETWEEN_STEPS_S)

    async def _round(self) -> bool:
        """Erase the users of all open requests; returns whether any are left."""
        left = False
        failed: ArchiveError | None = None
        requests: list[ErasureRequest] = []
        # Requests that arrive meanwhile belong to the next round; otherwise this one might never end.
        more = True
        while more:
            requests = await self._archive.read_catalogue(open_requests, requests[-1] if requests else None)
            more = len(requests) == REQUESTS_PER_READ
            try:
                if requests:
                    left = await self._erase(requests) or left
            except LeaseLostError:
                raise
            except ArchiveError as error:
                failed = failed or error
        if failed is not None:
            raise failed
        return left

    async def _erase(self, requests: Sequence[ErasureRequest]) -> bool:
        """Erase some users; returns whether any are left."""
        archive = self._archive
        await self._rewrite_all(LineMatcher(requests))
        # An erasure is not done while any file has a line, even a file that does not count.
        if not await shield_until_done(
            self._in_thread(remove_uncommitted, archive.root, archive.held_lease(), archive.part)
        ):
            return True
        for user_eraser in self._user_erasers:
            await self._erase_elsewhere(user_eraser, requests)
        models = {
            request.erase_id: sum(counts[request.erase_id] for counts in self._done.values())
            for request in requests
            if all(request.erase_id in counts for counts in self._done.values())
        }
        if models:
            await shield_until_done(archive.write_catalogue(finish_requests, models, rfc3339_ms(time.time())))
        for erase_id, count in models.items():
            for counts in self._done.values():
                counts.pop(erase_id, None)
            self._context.counters.users_erased += 1
            self._context.notify(UserErased(erase_id, count))
        return len(models) < len(requests)

    async def _erase_elsewhere(self, user_eraser: UserEraser, requests: Sequence[ErasureRequest]) -> None:
        counts = self._done[user_eraser.name]
        waiting = [request for request in requests if request.erase_id not in counts]
        if not waiting:
            return
        try:
            # Not shielded: it may wait for its disk without end, and the next run calls it again.
            requested = {request.user_id: request.requested_at for request in sorted(waiting, key=_requested_at)}
            models = await user_eraser.erase(requested)
        except Exception as error:  # noqa: BLE001 - a `UserEraser` may raise anything; it is called again
            self._failed(user_eraser.name, f"{type(error).__name__}: {error}")
        else:
            counts.update((request.erase_id, models.get(request.user_id, 0)) for request in waiting)

    async def _seal_files_of(self, matcher: LineMatcher) -> None:
        """Seal the files that still grow if one of them has a line to erase; late events go into no new file."""
        for path, length in (await self._archive.growing_files()).items():
            try:
                found = await shield_until_done(
                    self._in_thread(contains_users, self._archive.root, path, length, matcher)
                )
            except ArchiveError:
                # It was sealed and replaced meanwhile, or is damaged, which the rewriting reports.
                found = True
            if found:
                await shield_until_done(self._archive.seal())
                return

    async def _rewrite_all(self, matcher: LineMatcher) -> None:
        await self._seal_files_of(matcher)
        clean: dict[str, FileLength] = {}
        failed: ArchiveError | None = None
        # Files may be replaced meanwhile; the new ones are searched as well.
        while todo := (await self._archive.sealed_files()).items() - clean.items():
            for path, length in sorted(todo):
                try:
                    result = await shield_until_done(self._rewrite(path, length, matcher))
                except LeaseLostError:
                    raise
                except ArchiveError as error:
                    # A damaged file keeps the request open; lines in the others are erased all the same.
                    failed = failed or error
                    result = path, length
                if result is not None:
                    clean[result[0]] = result[1]
        if failed is not None:
            raise failed

    async def _rewrite(self, path: str, length: FileLength, matcher: LineMatcher) -> tuple[str, FileLength] | None:
        """Rewrite one file if need be; returns the clean one, or None if another process replaced it."""
        root, lease_epoch = self._archive.root, self._archive.held_lease()
        try:
            replacement = await self._in_thread(rewrite, root, lease_epoch, path, length, matcher)
        except ArchiveError:
            if path in await self._archive.sealed_files():
                raise
            # It was compacted while it was read; the new file comes next.
            return None
        if replacement is None:
            return path, length
        done = await self._archive.write_catalogue(replace_file, replacement)
        # The finished transaction decides which of the two counts; after a failure the next lease holder removes one.
        await self._in_thread(_remove, root / (path if done else replacement.new[0]))
        if not done:
            return None
        self._context.counters.erased += sum(replacement.erased.values())
        return replacement.new

    async def _in_thread(self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: call(*args, **kwargs))

    def _failed(self, where: str, error: str) -> None:
        self._context.counters.last_error = error
        self._context.notify(EraseFailed(where, error))


def _requested_at(request: ErasureRequest) -> str:
    return request.requested_at


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
        sync_directory(path.parent)
