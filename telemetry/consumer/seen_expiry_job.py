"""The background job that deletes seen events older than the window, in steps that a commit can wait for."""

import asyncio
from typing import Final

from telemetry.archive.archive import Archive
from telemetry.consumer.context import ConsumerContext
from telemetry.errors import ArchiveError, LeaseLostError

# The longest that one step may delay a commit.
_STEP_S: Final = 0.02
_MIN_PER_STEP, _MAX_PER_STEP = 50, 5000


class SeenExpiryJob:
    """Expires seen events as fast as they grow old, while the archive's lease is held."""

    def __init__(self, archive: Archive, context: ConsumerContext) -> None:
        self._archive = archive
        self._context = context
        self._limit = _MIN_PER_STEP

    async def run(self) -> None:
        """Expire until cancelled."""
        while True:
            await asyncio.sleep(self._context.settings.heartbeat_s)
            try:
                while await self._step():
                    pass
            except LeaseLostError:
                raise
            except ArchiveError as error:
                self._context.archive_failed(error)

    async def _step(self) -> bool:
        """Delete some; returns whether there may be more."""
        limit = self._limit
        expired, took_s = await self._archive.expire_seen(self._context.settings.seen_days, limit)
        more = expired == limit
        if more:
            self._limit = min(max(round(limit * _STEP_S / took_s), _MIN_PER_STEP), _MAX_PER_STEP)
        # As long again for the commits, which share the catalogue's thread.
        await asyncio.sleep(took_s)
        return more
