"""A spool on a real disk whose operations can be refused, and the events that were appended to it."""

import errno
import os
import threading
from pathlib import Path

from telemetry.batch import Position
from telemetry.events import decode, encode
from telemetry.settings import ProducerSettings
from telemetry.wal.disk import File, RealDisk
from telemetry.wal.recent_frames import RECENT_BYTES
from telemetry.wal.slot import Slot
from telemetry.wal.spool import Spool
from tests.support import sample_events
from tests.support.spools.killed_spool import kill

SETTINGS = ProducerSettings(spool_bytes=1024 * 1024, ring_bytes=128 * 1024, commit_interval_s=3600.0)


class FaultyDisk(RealDisk):
    """The real one, with the operations in `refused` failing and `fdatasync` held back by `gate`."""

    def __init__(self) -> None:
        self.refused: set[str] = set()
        self.syncs = self.reads = 0
        self.gate = threading.Event()
        self.gate.set()

    def check(self, what: str) -> None:
        if what in self.refused:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def read(self, path: Path, offset: int = 0, size_bytes: int | None = None) -> bytes:
        self.reads += 1
        return super().read(path, offset, size_bytes)

    def create(self, path: Path, size_bytes: int) -> File:
        self.check("create")
        return _FaultyFile(super().create(path, size_bytes), self)

    def replace(self, path: Path, data: bytes) -> None:
        self.check("replace")
        super().replace(path, data)

    def unlink(self, path: Path) -> None:
        self.check("unlink")
        super().unlink(path)


class _FaultyFile:
    def __init__(self, file: File, disk: FaultyDisk) -> None:
        self._file = file
        self._disk = disk
        self.truncate = file.truncate
        self.close = file.close

    def write_at(self, data: bytes, offset: int) -> None:
        self._disk.check("write")
        self._file.write_at(data, offset)

    def sync(self) -> None:
        self._disk.syncs += 1
        self._disk.gate.wait(30)
        self._disk.check("sync")
        self._file.sync()


class Log:
    """A spool in a directory, and the events that were appended to it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.disk = FaultyDisk()
        self.spools: list[Spool] = []
        self.number = 0

    @property
    def spool(self) -> Spool:
        return self.spools[-1]

    @property
    def directory(self) -> Path:
        return self.root / "0"

    def open(self, settings: ProducerSettings = SETTINGS, recent_bytes: int = RECENT_BYTES) -> Spool:
        slot = Slot.open(self.root, 0, self.disk)
        try:
            self.spools.append(Spool(slot, settings, self.disk, recent_bytes=recent_bytes))
        except BaseException:
            slot.close()
            raise
        return self.spool

    def kill(self) -> None:
        """End the process without closing the spool."""
        kill(self.spool)

    def append(self, count: int, size_bytes: int = 5) -> None:
        spool = self.spool
        for _ in range(count):
            self.number += 1
            event = sample_events.served(event_id=f"ev-{self.number:08d}", user_id="u" * size_bytes)
            spool.append(encode(event, spool.producer_id, spool.epoch, spool.next_seq))

    async def held(self) -> list[tuple[int, int, str]]:
        """Return epoch, number and event id of everything durable."""
        found = []
        place = Position(0, 0)
        while (run := await self.spool.read(place, 7, 10**6)) is not None:
            for seq, line in enumerate(run.lines, run.first_seq):
                record = decode(line)
                assert record[1:] == (self.spool.producer_id, run.epoch, seq)
                found.append((run.epoch, seq, record.event.event_id))
            place = run.last
        return found

    def expected(self, epoch: int, first: int, last: int) -> list[tuple[int, int, str]]:
        """Return what `held` gives for events that got numbers from 1 on in one epoch."""
        return [(epoch, number - first + 1, f"ev-{number:08d}") for number in range(first, last + 1)]
