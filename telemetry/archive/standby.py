"""A consumer that waits for the lease of an archive, and ends frozen processes that would block the takeover.

Takeover needs a transaction, and SQLite's write lock belongs to a process until that ends it. A process that is frozen
within a transaction would hold the lock until it is woken, so nothing would be archived meanwhile. No transaction can
be protected from a freeze, and no lock can be taken from its owner without letting both write. So its owner is killed:
it is in no other state than after `kill -9`, which every step of the consumer survives, and it cannot wake up.

Invariant: a process is ended only if it holds such a lock and has not run for the takeover time. One that works or
waits for its disk is waited for, and a frozen one that blocks nothing is left alone: the lease fences it.

Used by one thread.
"""

import time
from functools import partial
from pathlib import Path
from typing import Final

from telemetry.archive.archive_lock import COMPACTION_LOCK
from telemetry.catalogue.catalogue import Catalogue
from telemetry.catalogue.catalogue_file import FILE_NAME
from telemetry.catalogue.frozen_process import Activity, FrozenWatch, activity_of, end_process
from telemetry.catalogue.lease import HolderLock, Lease, LeaseWatch, holder_name, this_machine
from telemetry.catalogue.lock_owners import exclusive_owners
from telemetry.errors import CatalogueBusyError
from telemetry.notes import ArchiveFailed, FrozenProcessEnded, Note, StandingBy

# SQLite's locks of a catalogue are on its file and on its shared memory.
_CATALOGUE_FILES: Final = (FILE_NAME, f"{FILE_NAME}-shm")


class Standby:
    """The wait of one consumer.

    Args:
        root: The archive.
        takeover_s: How long a heartbeat, or the owner of a lock, must stand still.
    """

    def __init__(self, root: Path, takeover_s: float) -> None:
        self._paths = tuple(root / name for name in _CATALOGUE_FILES)
        self._compaction = root / COMPACTION_LOCK
        self._machine = this_machine()
        self._name = holder_name()
        self._watch = LeaseWatch(takeover_s, self._machine)
        self._frozen = FrozenWatch(takeover_s)
        self._holder: str | None = None
        self._notes: list[Note] = []
        self._reported: set[type[Note]] = set()

    def take_notes(self) -> list[Note]:
        """Return what there is to report since the last call."""
        notes, self._notes = self._notes, []
        return notes

    def is_blocked(self) -> bool:
        """End frozen processes that hold the archive's locks; returns whether one is still to be waited for."""
        now_s = time.monotonic()
        marks = {pid: activity_of(pid) for pid in self._owners()}
        frozen, stands_still = self._frozen.look({pid: mark for pid, mark in marks.items() if mark}, now_s)
        for pid, mark in frozen.items():
            if end_process(pid, partial(self._still_owns, pid, mark)):
                self._notes.append(FrozenProcessEnded(pid))
        return stands_still and not frozen

    def try_acquire(self, catalogue: Catalogue, lock: HolderLock) -> Lease | None:
        """Acquire the lease if it may be acquired.

        Raises:
            CatalogueBusyError: Another process holds a lock of the catalogue.
            ArchiveError: The catalogue cannot be read or written.
        """
        seen = catalogue.lease.read()
        # A name is that of a process of this machine only there.
        self._holder = seen.holder if seen.machine == self._machine else None
        locked = lock.acquire()
        try:
            lease = None
            if self._watch.may_acquire(seen, time.monotonic(), locked=locked):
                lease = catalogue.lease.acquire(seen, self._name, self._machine, locked=locked)
            else:
                self._report(StandingBy(seen.holder))
        except BaseException:
            lock.release()
            raise
        if lease is None:
            # Other standbys would take one that keeps the lock for a living holder.
            lock.release()
        return lease

    def busy(self, error: CatalogueBusyError) -> None:
        """Report once that the catalogue is locked."""
        self._report(ArchiveFailed(str(error)))

    def _report(self, note: Note) -> None:
        if type(note) not in self._reported:
            self._reported.add(type(note))
            self._notes.append(note)

    def _owners(self) -> set[int]:
        """Return the processes that block a takeover: owners of the catalogue's locks, and a holder that compacts."""
        removing = {pid for pid in exclusive_owners([self._compaction]) if holder_name(pid) == self._holder}
        return exclusive_owners(self._paths) | removing

    def _still_owns(self, pid: int, mark: Activity) -> bool:
        return pid in self._owners() and activity_of(pid) == mark
