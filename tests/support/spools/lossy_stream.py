"""A Redis that loses what it likes, connections that break, and an archive behind them that loses nothing."""

import copy
from random import Random

from telemetry.batch import Batch, Position
from telemetry.consumer.commit_plan import plan_commit
from telemetry.consumer.context import ConsumerContext
from telemetry.consumer.delivery_sorter import sort_deliveries
from telemetry.consumer.event_reader import EventReader
from telemetry.consumer.subscription import Subscription
from telemetry.erasure.erasure import LateEventFilter
from telemetry.errors import StreamAwayError, StreamError, StreamRefusedError
from telemetry.fingerprint import Fingerprints
from telemetry.settings import ConsumerSettings
from telemetry.stream.event_stream import Appended, CommittedEntries, Delivered
from telemetry.stream.memory_stream import MemoryServer, MemoryStream

NOW = "2026-11-21T01:02:03.456Z"


class LossyServer(MemoryServer):
    """A server that loses data; restoring an older state takes another process, which no connection survives."""

    def __init__(self) -> None:
        super().__init__()
        self.process = 0
        self.copies: list[dict[str, object]] = []

    def lose_last(self, count: int) -> None:
        """Go over to a copy that lacks the newest entries."""
        self.process += 1
        for name, log in list(self.streams.items()):
            kept = sorted(log.entries)[: max(len(log.entries) - count, 0)]
            # Trimmed entries existed, so the copy had them as well.
            last = kept[-1] if kept else self.watermarks.get(name, Position(0, 0))
            if last == Position(0, 0):
                del self.streams[name]
                continue
            log.entries = {at: log.entries[at] for at in kept}
            log.last = min(log.last, last)
            log.delivered = None if log.delivered is None else min(log.delivered, log.last)
            log.pending = {at for at in log.pending if at <= log.last}

    def lose(self, rng: Random, share: float) -> None:
        """Lose entries anywhere and keep the last id, as XTRIM and XDEL do."""
        for log in self.streams.values():
            log.entries = {at: entry for at, entry in log.entries.items() if rng.random() >= share}

    def save(self) -> None:
        """Make a copy of everything."""
        names = ("announced", "streams", "watermarks")
        self.copies.append({name: copy.deepcopy(getattr(self, name)) for name in names})

    def restore(self, which: int) -> None:
        """Go back to a copy, or to nothing."""
        self.process += 1
        self.flush_all()
        for name, value in copy.deepcopy(self.copies[which] if which < len(self.copies) else {}).items():
            setattr(self, name, value)


class Connection(MemoryStream):
    """A connection that ends with the server's process."""

    def __init__(self, server: LossyServer) -> None:
        super().__init__(server)
        self._lossy = server
        self._process = -1

    async def connect(self) -> None:
        self._process = self._lossy.process
        await super().connect()

    def _check(self) -> None:
        if self._process != self._lossy.process:
            self._connected = False
        super()._check()


class UnreliableConnection(Connection):
    """A connection whose next append may fail."""

    fault: str | None = None

    async def append(self, producer: str, batch: Batch, *, create: bool) -> Appended:
        fault, self.fault = self.fault, None
        if fault == "refused":
            raise StreamRefusedError("OOM command not allowed")
        if fault == "broken":
            await self.close()
            raise StreamAwayError("the connection broke")
        appended = await super().append(producer, batch, create=create)
        if fault == "reply lost":
            await self.close()
            raise StreamAwayError("no answer")
        return appended


class Archive:
    """The consumer's decisions, with a dictionary as an archive that loses nothing."""

    def __init__(self, server: LossyServer) -> None:
        self._stream = Connection(server)
        self.restart()
        self.watermarks: dict[str, Position] = {}
        self.ids: dict[str, tuple[str, int, int]] = {}

    def restart(self) -> None:
        """Continue in another process."""
        self._connected = False
        self._streams = Subscription(self._stream, ConsumerContext(ConsumerSettings()))

    async def turn(self, *, max_entries: int, dies: str | None = None) -> bool:
        """Read once and commit; returns whether there was something. A consumer may die before or after the commit."""
        try:
            if not self._connected:
                await self._stream.connect()
                self._streams.reconnected()
                self._connected = True
            streams = self._streams
            await streams.refresh(self.watermarks)
            if streams.groupless:
                wanted = {name: self.watermarks.get(name, Position(0, 0)) for name in streams.groupless}
                await self._archive_read(
                    await self._stream.scan(wanted, max_entries=max_entries), pending=True, dies=dies
                )
            pending = bool(streams.recheck)
            names = sorted(streams.recheck or streams.joined)
            if not names:
                return False
            read = await self._stream.read(names, pending=pending, max_entries=max_entries, block_ms=0)
            streams.busy.update(name for name, _ in read)
            if pending:
                streams.recheck.intersection_update(name for name, _ in read)
            await self._archive_read(read, pending=pending, dies=dies)
        except StreamError:
            self._connected = False
            return True
        return pending or bool(read)

    async def _archive_read(self, read: list[Delivered], *, pending: bool, dies: str | None) -> None:
        if dies == "before":
            self.restart()
            return
        streams = self._streams
        found = sort_deliveries(read, self.watermarks, EventReader(), pending=pending, now=NOW, resends=streams.resends)
        streams.recheck |= found.recheck & streams.joined
        streams.add_gaps(found.gaps, found.linked)
        plan = plan_commit(found, {}, LateEventFilter("00", {}), Fingerprints())
        assert not found.dead_letters, f"an event became a dead letter: {found.notes}"
        assert not found.notes, f"an event is missing: {found.notes}"
        for record in plan.records:
            event_id = record.event.event_id
            assert event_id not in self.ids, f"{event_id} is archived as {self.ids[event_id]} and as {record[1:]}"
            self.ids[event_id] = record[1:]
        for (producer, epoch), progress in found.progress.items():
            mark = Position(epoch, progress.seq)
            self.watermarks[producer] = max(self.watermarks.get(producer, mark), mark)
        if dies == "after":
            self.restart()
            return
        settled = [
            CommittedEntries(name, ids, self.watermarks.get(name)) for name, ids in found.to_acknowledge.items() if ids
        ]
        await self._stream.acknowledge(settled)
