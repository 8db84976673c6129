"""What to do with delivered entries: the consumer's judgement, without its hands.

Invariants:

- An event is new only if its (epoch, seq) lies above the producer's watermark; every one above it is archived,
  deduplicated, dead-lettered, erased or counted as missing, exactly one of these, and the watermark then covers
  it. Which numbers are not archived, and why, is told in runs.
- Nothing blocks: what cannot be read becomes a dead letter. What fails unexpectedly is tried in three rounds
  (`reader.py`); meanwhile the watermark of its producer stands before it, and only of its producer.
- The watermark moves over a break in the numbers (a hole, a new epoch, an unreadable entry) only when the
  entries come from the pending list, which is in order from its start. Seen anywhere else, a break may mean
  that a predecessor took entries and never committed them; then the producer is read again from there.
- Even then it moves only if nothing of the break can still come (`gaps.py`). Otherwise this producer's entries are
  left alone from there on.

Pure but for the memory of the reader: no clock, no file, no socket.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

import orjson

from telemetry.archive.archive_files import DEAD_LETTERS, date_folder
from telemetry.archive.dead_letters import Letter, compose
from telemetry.batch import Batch, Entry, Position, from_entry
from telemetry.catalogue.commit import CommitContent, Progress, RemovedRun, Seen, SeenKey, add_run
from telemetry.consumer.event_reader import EventReader, Failure
from telemetry.consumer.stream_gaps import may_pass_gap
from telemetry.erasure.erasure import LateEventFilter, is_erase
from telemetry.errors import BadBatchError
from telemetry.events import Feedback, Record, System
from telemetry.fingerprint import UNKNOWN, Fingerprints, same_user
from telemetry.ids import uuid7
from telemetry.notes import DeadLettered, SequenceGapFound
from telemetry.stream.event_stream import Delivered


@dataclass(slots=True)
class SortedDeliveries:
    """What was found in one read.

    Attributes:
        fresh: New events with their lines, as written by the producer.
        dead: Lines for the dead letters.
        progress: By (producer, epoch): what a commit of all this adds; `plan_commit` counts `fresh`.
        removed: The numbers in it that are neither fresh nor old.
        settled: By producer: entries to acknowledge after the commit.
        recheck: Producers to read again from their pending list.
        gaps: By producer: the watermark before what Redis lost and the producer may still hold.
        linked: Producers whose batches say what they follow.
        redelivered: Events at or below the watermark.
        trimmed: Pending entries that Redis no longer has.
        notes: What an observer should hear once it is committed.
    """

    fresh: list[tuple[Record, bytes]] = field(default_factory=list)
    dead: list[bytes] = field(default_factory=list)
    progress: dict[tuple[str, int], Progress] = field(default_factory=dict)
    removed: list[RemovedRun] = field(default_factory=list)
    settled: dict[str, list[str]] = field(default_factory=dict)
    recheck: set[str] = field(default_factory=set)
    gaps: dict[str, Position] = field(default_factory=dict)
    linked: set[str] = field(default_factory=set)
    redelivered: int = 0
    trimmed: int = 0
    notes: list[SequenceGapFound | DeadLettered] = field(default_factory=list)

    def keys(self) -> list[SeenKey]:
        """The (tenant, event_id) of all new feedback."""
        return [(record.event.tenant, record.event.event_id) for record, _ in self.fresh if _is_feedback(record)]

    def users(self) -> set[str]:
        """Whose new events there are."""
        events = (record.event for record, _ in self.fresh)
        return {event.user_id for event in events if not isinstance(event, System) and event.user_id is not None}


@dataclass(slots=True)
class CommitPlan:
    """What to commit, the events in it, and how many of them have an id that stands for another event, too."""

    added: CommitContent
    records: list[Record] = field(default_factory=list)
    conflicts: int = 0


def sort_deliveries(
    deliveries: Iterable[Delivered],
    watermarks: Mapping[str, Position],
    reader: EventReader,
    *,
    pending: bool,
    now: str,
    asked: Callable[[str, Position], int] = lambda _producer, _at: 0,
) -> SortedDeliveries:
    """Sort delivered entries.

    Args:
        deliveries: As read, in the stream's order for each producer.
        watermarks: How far each producer is archived.
        reader: Reads the events.
        pending: Whether they come from the pending list, read from its start.
        now: The time for dead letters, RFC 3339.
        asked: How often a producer was asked to send again what follows a watermark.

    Returns:
        What was found.
    """
    intake = SortedDeliveries()
    for producer, entries in deliveries:
        at = watermarks.get(producer, Position(0, 0))
        _ProducerSorter(intake, producer, reader, now, pending=pending, asked=asked).sort_deliveries(entries, at)
    return intake


def plan_commit(
    intake: SortedDeliveries,
    seen: Mapping[SeenKey, AbstractSet[bytes]],
    forgotten: LateEventFilter,
    fingerprints: Fingerprints,
) -> CommitPlan:
    """Remove duplicated feedback and forgotten users, and lay out the commit.

    Feedback under an id that its user has used for something else is archived, and marked.

    Args:
        intake: What `sort_deliveries` found; its progress is completed here.
        seen: Which of its keys the archive remembers, with the fingerprints of what was archived.
        forgotten: Whose late events are not archived.
        fingerprints: Those of the archive.

    Returns:
        The commit.
    """
    added = CommitContent(progress=intake.progress, removed=intake.removed)
    result = CommitPlan(added)
    taken = {key: set(known) for key, known in seen.items()}
    for record, line in intake.fresh:
        event, producer, epoch, seq = record
        progress = intake.progress[producer, epoch]
        if forgotten and forgotten.is_late(record):
            progress.erased += 1
            add_run(added.removed, producer, epoch, range(seq, seq + 1), "erased", event.received_at)
            continue
        if isinstance(event, Feedback):
            known = taken.setdefault((event.tenant, event.event_id), set())
            fingerprint = fingerprints.of_event(event)
            if fingerprint in known or UNKNOWN in known:
                progress.deduplicated += 1
                add_run(added.removed, producer, epoch, range(seq, seq + 1), "deduplicated", event.received_at)
                continue
            if any(same_user(fingerprint, other) for other in known):
                result.conflicts += 1
                record, line = _marked(record, event, line)  # noqa: PLW2901 - archived with the mark
            known.add(fingerprint)
            added.seen.append(Seen(event.tenant, event.event_id, fingerprint))
        elif is_erase(record):
            record, line, erasure = forgotten.redact(record, line)  # noqa: PLW2901 - the id is in neither any more
            added.erasures.append(erasure)
        progress.archived += 1
        result.records.append(record)
        added.folders.setdefault(date_folder(event.received_at), []).append(line)
    if intake.dead:
        added.folders[DEAD_LETTERS] = intake.dead
    return result


class _ProducerSorter:
    """One producer's entries."""

    def __init__(
        self,
        intake: SortedDeliveries,
        producer: str,
        reader: EventReader,
        now: str,
        *,
        pending: bool,
        asked: Callable[[str, Position], int],
    ) -> None:
        self._intake = intake
        self._producer = producer
        self._reader = reader
        self._now = now
        self._pending = pending
        self._asked = asked

    def sort_deliveries(self, entries: Sequence[Entry], at: Position) -> None:
        """Take entries as long as the watermark can move."""
        settled = self._intake.settled.setdefault(self._producer, [])
        for number, entry in enumerate(entries):
            position = Position.parse(entry.entry_id)
            if entry.fields is None:
                # Nobody but the consumer trims, and only what is archived; the hole, if any, shows at the next entry.
                self._intake.trimmed += 1
            elif position <= at:
                self._intake.redelivered += 1
            else:
                start = at.seq + 1 if position.epoch == at.epoch else 1
                batch, problem = _open(entry)
                if batch is not None and batch.after is not None:
                    self._intake.linked.add(self._producer)
                in_order = batch is not None and position.epoch == at.epoch and batch.first_seq <= start
                if not (in_order or self._pending):
                    self._intake.recheck.add(self._producer)
                    return
                if not (in_order or self._may_pass(batch, position, at)):
                    self._intake.gaps[self._producer] = at
                    return
                if batch is None:
                    at = self._dead_letter_entry(entry, position, at, start, problem)
                elif self._take(batch, entry, start) < batch.last_seq:
                    self._intake.recheck.add(self._producer)
                    self._try_others(entries[number + 1 :])
                    return
                else:
                    at = position
            settled.append(entry.entry_id)

    def _may_pass(self, batch: Batch | None, position: Position, at: Position) -> bool:
        if not position.in_range:
            # A watermark there would hide every event to come.
            return False
        if batch is not None and (at, position.epoch, batch.first_seq) == (Position(0, 0), 1, 1):
            # The beginning: no number is smaller.
            return True
        after = None if batch is None else batch.after
        return may_pass_gap(self._asked(self._producer, at), at, after, whole=batch is not None)

    def _take(self, batch: Batch, entry: Entry, start: int) -> int:
        """Take the events of a batch, up to one that is to be tried again; returns the last number taken."""
        intake, producer, epoch, reader = self._intake, self._producer, batch.epoch, self._reader
        reached = start - 1
        if batch.first_seq > start:
            reached = batch.first_seq - 1
            progress = self._progress(epoch, reached)
            progress.holes += 1
            progress.missing += batch.first_seq - start
            add_run(intake.removed, producer, epoch, range(start, batch.first_seq), "missing", None)
            intake.notes.append(SequenceGapFound(producer, epoch, start - 1, batch.first_seq - start))
        held_up = False
        for seq, line in enumerate(batch.lines, batch.first_seq):
            if seq < start:
                intake.redelivered += 1
                continue
            result = reader.read(line, (producer, epoch, seq))
            if held_up:
                # Tried all the same, so that many failing events take no longer than one.
                continue
            if isinstance(result, Failure):
                if not result.final:
                    held_up = True
                    continue
                self._dead_letter(entry, range(seq, seq + 1), seq, line, result)
            else:
                intake.fresh.append((result, line))
            reached = seq
        if reached >= start:
            self._progress(epoch, reached)
        return reached

    def _try_others(self, entries: Iterable[Entry]) -> None:
        """Try the events behind one that failed: they too may need their three rounds."""
        for entry in entries:
            batch, _ = _open(entry)
            if batch is not None:
                for seq, line in enumerate(batch.lines, batch.first_seq):
                    self._reader.read(line, (self._producer, batch.epoch, seq))

    def _dead_letter_entry(self, entry: Entry, position: Position, at: Position, start: int, problem: str) -> Position:
        """Bury what is no batch; returns how far the watermark then reaches."""
        data = b"".join((entry.fields or {}).values())
        failure = Failure(problem, 1, final=True)
        self._progress(position.epoch, position.seq)
        self._dead_letter(entry, range(start, position.seq + 1), None, data, failure)
        return position

    def _dead_letter(self, entry: Entry, numbers: range, seq: int | None, data: bytes, failure: Failure) -> None:
        intake, producer = self._intake, self._producer
        first_seq = numbers.start if numbers else None
        intake.dead.append(
            compose(
                Letter(
                    letter_id=uuid7(),
                    at=self._now,
                    producer=producer,
                    entry_id=entry.entry_id,
                    first_seq=first_seq,
                    seq=seq,
                    reason=failure.reason,
                    tries=failure.tries,
                    data=data,
                )
            )
        )
        if numbers:
            epoch = Position.parse(entry.entry_id).epoch
            self._progress(epoch, numbers.stop - 1).dead_lettered += len(numbers)
            add_run(intake.removed, producer, epoch, numbers, "dead_lettered", None)
        intake.notes.append(DeadLettered(producer, entry.entry_id, failure.reason))

    def _progress(self, epoch: int, seq: int) -> Progress:
        progress = self._intake.progress.setdefault((self._producer, epoch), Progress(seq))
        progress.seq = max(progress.seq, seq)
        return progress


def _open(entry: Entry) -> tuple[Batch | None, str]:
    try:
        return from_entry(entry), ""
    except BadBatchError as error:
        return None, str(error)


def _marked(record: Record, event: Feedback, line: bytes) -> tuple[Record, bytes]:
    """Mark an event whose id stands for another one; fields that we do not know stay."""
    fields = orjson.loads(line)
    fields["marks"] = marks = [*event.marks, "id_conflict"]
    return record._replace(event=replace(event, marks=marks)), orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)


def _is_feedback(record: Record) -> bool:
    return isinstance(record.event, Feedback)
