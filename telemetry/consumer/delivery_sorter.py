"""Sorts delivered entries into new events, dead letters, gaps, and entries that wait.

Invariants: each (epoch, seq) above the producer's watermark is archived, deduplicated, dead-lettered, erased or counted
as missing, exactly one of them; the watermark then covers it. It passes a break in the numbers only in the pending
list, which is in order from its start, and only if nothing of the break can still come (`stream_gaps.py`); elsewhere a
break may mean that a dead consumer read entries and never committed them. No event blocks another producer's.

Pure but for the failed tries that the reader counts: no clock, no file, no socket.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from telemetry.archive.dead_letters import DeadLetter, encode_letter
from telemetry.batch import Batch, Entry, EventPosition, Position, from_entry
from telemetry.catalogue.commit import Progress, RemovedRun, SeenKey, add_run
from telemetry.consumer.event_reader import EventReader, Failure
from telemetry.consumer.stream_gaps import may_pass_gap
from telemetry.errors import BadBatchError
from telemetry.events import Feedback, ItemChange, Record, Served
from telemetry.ids import uuid7
from telemetry.notes import DeadLettered, SequenceGapFound
from telemetry.stream.event_stream import Delivered

_START = Position(0, 0)


@dataclass(slots=True)
class SortedDeliveries:
    """The content of one read.

    Attributes:
        fresh: New events with their lines, as written by the producer.
        dead_letters: Their lines.
        progress: By (producer, epoch): what a commit of all this adds; `plan_commit` counts `fresh`.
        removed: The sequence numbers that are neither fresh nor archived before.
        to_acknowledge: By producer: entries to acknowledge after the commit.
        recheck: Producers whose pending list is to be read.
        gaps: By producer: the watermark before entries that Redis lost and the producer may still hold.
        linked: Producers whose batches name their predecessor.
        redelivered: Events at or below the watermark.
        trimmed: Pending entries that Redis no longer has.
        notes: For the observer, after the commit.
    """

    fresh: list[tuple[Record, bytes]] = field(default_factory=list)
    dead_letters: list[bytes] = field(default_factory=list)
    progress: dict[tuple[str, int], Progress] = field(default_factory=dict)
    removed: list[RemovedRun] = field(default_factory=list)
    to_acknowledge: dict[str, list[str]] = field(default_factory=dict)
    recheck: set[str] = field(default_factory=set)
    gaps: dict[str, Position] = field(default_factory=dict)
    linked: set[str] = field(default_factory=set)
    redelivered: int = 0
    trimmed: int = 0
    notes: list[SequenceGapFound | DeadLettered] = field(default_factory=list)

    def seen_keys(self) -> list[SeenKey]:
        """Return the (tenant, event_id) of all new feedback and item changes."""
        events = (record.event for record, _ in self.fresh)
        return [(event.tenant, event.event_id) for event in events if isinstance(event, Feedback | ItemChange)]

    def user_ids(self) -> set[str]:
        """Return the users of the new events."""
        events = (record.event for record, _ in self.fresh)
        return {event.user_id for event in events if isinstance(event, Served | Feedback) and event.user_id is not None}


def sort_deliveries(
    deliveries: Iterable[Delivered],
    watermarks: Mapping[str, Position],
    reader: EventReader,
    *,
    pending: bool,
    now: str,
    resends: Callable[[str, Position], int] = lambda _producer, _at: 0,
) -> SortedDeliveries:
    """Sort delivered entries.

    Args:
        deliveries: As read, in the stream's order for each producer.
        pending: Whether they come from the pending list, read from its start.
        now: The time for dead letters, RFC 3339.
        resends: Returns how often a producer was asked to send again from a watermark on.
    """
    result = SortedDeliveries()
    for producer, entries in deliveries:
        _ProducerSorter(result, producer, reader, now, pending, resends).sort(entries, watermarks.get(producer, _START))
    return result


@dataclass(slots=True)
class _ProducerSorter:
    """Sorts the entries of one producer into a result."""

    result: SortedDeliveries
    producer: str
    reader: EventReader
    now: str
    pending: bool
    resends: Callable[[str, Position], int]

    def sort(self, entries: Sequence[Entry], at: Position) -> None:
        """Sort entries from a watermark on, as long as the watermark can move."""
        to_acknowledge = self.result.to_acknowledge.setdefault(self.producer, [])
        for index, entry in enumerate(entries):
            position = Position.parse(entry.entry_id)
            if entry.fields is None:
                # Only a consumer trims, and only archived entries; a hole, if any, shows at the next entry.
                self.result.trimmed += 1
            elif position <= at:
                self.result.redelivered += 1
            else:
                start = at.seq + 1 if position.epoch == at.epoch else 1
                batch, problem = _decode_batch(entry)
                if batch is not None and batch.after is not None:
                    self.result.linked.add(self.producer)
                in_order = batch is not None and position.epoch == at.epoch and batch.first_seq <= start
                if not (in_order or self.pending):
                    self.result.recheck.add(self.producer)
                    return
                if not (in_order or self._may_pass(batch, position, at)):
                    self.result.gaps[self.producer] = at
                    return
                if batch is None:
                    self._dead_letter_entry(entry, position, start, problem)
                elif self._read_batch(batch, entry, start) < batch.last_seq:
                    self.result.recheck.add(self.producer)
                    self._read_ahead(entries[index + 1 :])
                    return
                at = position
            to_acknowledge.append(entry.entry_id)

    def _may_pass(self, batch: Batch | None, position: Position, at: Position) -> bool:
        if not position.in_range:
            # A watermark there would hide every later event.
            return False
        if batch is not None and (at, position.epoch, batch.first_seq) == (_START, 1, 1):
            # The beginning: no sequence number is smaller.
            return True
        after = None if batch is None else batch.after
        return may_pass_gap(self.resends(self.producer, at), at, after, is_batch=batch is not None)

    def _read_batch(self, batch: Batch, entry: Entry, start: int) -> int:
        """Read the events of a batch, up to one that is to be tried again; returns the last seq reached."""
        result, producer, epoch, reader = self.result, self.producer, batch.epoch, self.reader
        reached = start - 1
        if batch.first_seq > start:
            reached = batch.first_seq - 1
            progress = self._progress(epoch, reached)
            progress.holes += 1
            progress.missing += batch.first_seq - start
            add_run(result.removed, producer, epoch, range(start, batch.first_seq), "missing", None)
            result.notes.append(SequenceGapFound(producer, epoch, start - 1, batch.first_seq - start))
        held_up = False
        for seq, line in enumerate(batch.lines, batch.first_seq):
            if seq < start:
                result.redelivered += 1
                continue
            outcome = reader.read(line, EventPosition(producer, epoch, seq))
            if held_up:
                # Tried all the same, so that many failing events take no longer than one.
                continue
            if isinstance(outcome, Failure):
                if not outcome.final:
                    held_up = True
                    continue
                self._dead_letter(entry, range(seq, seq + 1), seq, line, outcome)
            else:
                result.fresh.append((outcome, line))
            reached = seq
        if reached >= start:
            self._progress(epoch, reached)
        return reached

    def _read_ahead(self, entries: Iterable[Entry]) -> None:
        """Try the events behind one that failed: they too may need their three rounds."""
        for entry in entries:
            batch, _ = _decode_batch(entry)
            if batch is not None:
                for seq, line in enumerate(batch.lines, batch.first_seq):
                    self.reader.read(line, EventPosition(self.producer, batch.epoch, seq))

    def _dead_letter_entry(self, entry: Entry, position: Position, start: int, problem: str) -> None:
        """Make one dead letter of an entry that is not a batch."""
        data = b"".join((entry.fields or {}).values())
        self._progress(position.epoch, position.seq)
        seqs = range(start, position.seq + 1)
        self._dead_letter(entry, seqs, None, data, Failure(problem, 1, final=True))

    def _dead_letter(self, entry: Entry, seqs: range, seq: int | None, data: bytes, failure: Failure) -> None:
        result, producer = self.result, self.producer
        result.dead_letters.append(
            encode_letter(
                DeadLetter(
                    letter_id=uuid7(),
                    at=self.now,
                    producer=producer,
                    entry_id=entry.entry_id,
                    first_seq=seqs.start if seqs else None,
                    seq=seq,
                    reason=failure.reason,
                    tries=failure.tries,
                    data=data,
                )
            )
        )
        if seqs:
            epoch = Position.parse(entry.entry_id).epoch
            self._progress(epoch, seqs.stop - 1).dead_lettered += len(seqs)
            add_run(result.removed, producer, epoch, seqs, "dead_lettered", None)
        result.notes.append(DeadLettered(producer, entry.entry_id, failure.reason))

    def _progress(self, epoch: int, seq: int) -> Progress:
        progress = self.result.progress.setdefault((self.producer, epoch), Progress(seq))
        progress.seq = max(progress.seq, seq)
        return progress


def _decode_batch(entry: Entry) -> tuple[Batch | None, str]:
    try:
        return from_entry(entry), ""
    except BadBatchError as error:
        return None, str(error)
