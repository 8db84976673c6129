"""Ships orphaned slots: slots with events that no process holds.

Invariant: a slot is opened only with its lock, after it was free for a while, and while the stream answers and is this
archive's; otherwise it stays free for its replica, which may restart at any moment. Shipping does what a start of the
replica would do, in a new epoch and without requests.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from telemetry.daemon_thread import run_in_daemon_thread
from telemetry.errors import SlotTakenError, SpoolError, StreamError
from telemetry.notes import Observer, OrphanShipped, notify
from telemetry.producer import Producer
from telemetry.settings import ProducerSettings
from telemetry.shielding import shield_until_done
from telemetry.stream.event_stream import EventStream
from telemetry.stream.namespace_owner import ShipDecision, decide_shipping
from telemetry.wal.slot import is_held
from telemetry.wal.slot_identity import archive_of_slot
from telemetry.wal.slot_inspection import holds_events

# The longest that shipping keeps a slot from its replica.
_HOLD_S: Final = 1.5
_THREAD: Final = "orphans"


class OrphanedSlots:
    """Ships the events of dead replicas.

    Args:
        spool: The directory that holds all slots.
        connect: Makes a stream for one slot.
        after_s: How long a slot must have been free.
        archive: The archive of this installation, if it is known.
    """

    def __init__(
        self,
        spool: Path,
        settings: ProducerSettings,
        connect: Callable[[], EventStream],
        after_s: float,
        observer: Observer | None = None,
        archive: str | None = None,
    ) -> None:
        self._archive = archive
        self._spool = spool
        self._settings = settings
        self._connect = connect
        self._after_s = after_s
        self._observer = observer
        self._free_since_s: dict[Path, float] = {}

    async def run(self) -> None:
        """Ship slots that were free for long enough, until cancelled."""
        while True:
            for directory in await self._find():
                await self._ship(directory, _HOLD_S)
            await asyncio.sleep(min(1.0, self._after_s))

    async def ship_all(self, deadline_s: float) -> int:
        """Ship every free slot now, because everything is being stopped; `run` has ended.

        Returns:
            How many slots still hold events.
        """
        until_s = time.monotonic() + deadline_s
        self._after_s = 0.0
        # A replica that stops at this moment may need a while to free its slot.
        while (left := await self._find()) and (rest_s := until_s - time.monotonic()) > 0:
            for directory in left:
                await self._ship(directory, rest_s)
        return len(left)

    async def _find(self) -> list[Path]:
        return await run_in_daemon_thread(self._orphaned, _THREAD)

    def _orphaned(self) -> list[Path]:
        now_s = time.monotonic()
        found = []
        try:
            directories = [path for path in self._spool.iterdir() if path.name.isdecimal()]
        except OSError:
            return []
        for directory in directories:
            # An unreadable slot is tried again the next time.
            with suppress(OSError, SpoolError):
                if is_held(directory) or not holds_events(directory):
                    self._free_since_s.pop(directory, None)
                elif now_s - self._free_since_s.setdefault(directory, now_s) >= self._after_s:
                    found.append(directory)
        return found

    async def _ship(self, directory: Path, deadline_s: float) -> None:
        stream = self._connect()
        try:
            await stream.connect()
            # A slot whose events must not go here is left to its replica.
            archive = await run_in_daemon_thread(lambda: archive_of_slot(directory), _THREAD) or self._archive
            if decide_shipping(archive, await stream.read_mark()) is not ShipDecision.SHIP:
                return
        except StreamError:
            return
        finally:
            await stream.close()
        slot = int(directory.name)

        def open_slot() -> Producer:
            return Producer(self._spool, slot, self._settings, stream, self._observer, archive=self._archive)

        opening = asyncio.ensure_future(run_in_daemon_thread(open_slot, _THREAD))
        try:
            producer = await asyncio.shield(opening)
        except (SlotTakenError, SpoolError):
            return
        except asyncio.CancelledError:
            # If it is opened after all, it is closed at once.
            opening.add_done_callback(_close_opened)
            raise
        try:
            recovered = producer.counters.recovered
            left = await producer.drain(deadline_s, archived=True)
        finally:
            await shield_until_done(run_in_daemon_thread(producer.close, _THREAD))
        notify(self._observer, OrphanShipped(slot, recovered, left))


def _close_opened(opening: "asyncio.Future[Producer]") -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
