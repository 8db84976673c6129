"""The background job that deletes seen events older than the window, in steps that a commit can wait for."""

import asyncio
from collections.abc import Callable
from typing import Final

from telemetry.archive.archive import Archive
from telemetry.errors import ArchiveError, LeaseLostError
from telemetry.settings import ConsumerSettings

# The longest that one step may delay a commit.
_STEP_S: Final = 0.02
_MIN_PER_STEP, _MAX_PER_STEP = 50, 5000


class SeenExpiryJob:
    """Expires seen events as fast as they grow old, while the archive's lease is held.

    Args:
        archive: Its lease is held.
        settings: The window and the interval.
        on_error: Told of failures of the archive.
    """

    def __init__(self, archive: Archive, settings: ConsumerSettings, on_error: Callable[[ArchiveError], None]) -> None:
        self._archive = archive
        self._settings = settings
        self._on_error = on_error
        self._limit = _MIN_PER_STEP

    async def run(self) -> None:
        """Expire until cancelled.

        Raises:
            LeaseLostError: Another consumer holds the archive.
        """
        while True:
            await asyncio.sleep(self._settings.heartbeat_s)
            try:
                while await self._step():
                    pass
            except LeaseLostError:
                raise
            except ArchiveError as error:
                self._on_error(error)

    async def _step(self) -> bool:
        """Delete some; returns whether there may be more."""
        limit = self._limit
        expired, took_s = await self._archive.expire_seen(self._settings.seen_days, limit)
        more = expired == limit
        if more:
            self._limit = min(max(round(limit * _STEP_S / took_s), _MIN_PER_STEP), _MAX_PER_STEP)
        # As long again for the commits, which share the catalogue's thread.
        await asyncio.sleep(took_s)
        return more
