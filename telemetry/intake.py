"""What to do with delivered entries: the consumer's judgement, without its hands.

Invariants:

- An event is new only if its (epoch, seq) lies above the producer's watermark; every one above it is archived,
  deduplicated, dead-lettered or counted as missing, exactly one of these, and the watermark then covers it.
- Nothing blocks: what cannot be read becomes a dead letter.
- The watermark moves over a break in the numbers (a hole, a new epoch, an unreadable entry) only when the
  entries come from the pending list, which is in order from its start. Seen anywhere else, a break may mean
  that a predecessor took entries and never committed them; then the producer is read again from there.

Pure: no clock, no file, no socket.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from telemetry.batch import MAX_NUMBER, Batch, Entry, Position, from_entry
from telemetry.catalogue import Progress, SeenKey
from telemetry.errors import BadBatchError, BadEventError
from telemetry.events import Feedback, Record, decode
from telemetry.notes import DeadLettered, HoleFound
from telemetry.parts import DEAD_LETTERS, date_folder
from telemetry.stream import Delivered


@dataclass(slots=True)
class Intake:
    """What was found in one read.

    Attributes:
        fresh: New events with their lines, as written by the producer.
        dead: Lines for the dead letters.
        progress: By (producer, epoch): what a commit of all this adds; `archived` is added by `plan`.
        settled: By producer: entries to acknowledge after the commit.
        recheck: Producers to read again from their pending list.
        redelivered: Events at or below the watermark.
        trimmed: Pending entries that Redis no longer has.
        notes: What an observer should hear once it is committed.
    """

    fresh: list[tuple[Record, bytes]] = field(default_factory=list)
    dead: list[bytes] = field(default_factory=list)
    progress: dict[tuple[str, int], Progress] = field(default_factory=dict)
    settled: dict[str, list[str]] = field(default_factory=dict)
    recheck: set[str] = field(default_factory=set)
    redelivered: int = 0
    trimmed: int = 0
    notes: list[HoleFound | DeadLettered] = field(default_factory=list)

    def keys(self) -> list[SeenKey]:
        """The (tenant, event_id) of all new feedback."""
        return [(record.event.tenant, record.event.event_id) for record, _ in self.fresh if _is_feedback(record)]


@dataclass(slots=True)
class Plan:
    """What to commit: lines by folder, the events in them, and the event ids to remember."""

    folders: dict[str, list[bytes]] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    seen: list[SeenKey] = field(default_factory=list)
    deduplicated: int = 0


def sift(deliveries: Iterable[Delivered], watermarks: Mapping[str, Position], *, pending: bool, now: str) -> Intake:
    """Sort delivered entries.

    Args:
        deliveries: As read, in the stream's order for each producer.
        watermarks: How far each producer is archived.
        pending: Whether they come from the pending list, read from its start.
        now: The time for dead letters, RFC 3339.

    Returns:
        What was found.
    """
    intake = Intake()
    for producer, entries in deliveries:
        _sift_producer(intake, producer, entries, watermarks.get(producer, Position(0, 0)), pending=pending, now=now)
    return intake


def plan(intake: Intake, seen: set[SeenKey]) -> Plan:
    """Remove duplicated feedback and lay out the commit.

    Args:
        intake: What `sift` found; its progress is completed here.
        seen: Which of its keys the archive remembers.

    Returns:
        The commit.
    """
    result = Plan()
    taken = set(seen)
    for record, line in intake.fresh:
        progress = intake.progress[record.producer, record.epoch]
        if _is_feedback(record):
            key = (record.event.tenant, record.event.event_id)
            if key in taken:
                progress.deduplicated += 1
                result.deduplicated += 1
                continue
            taken.add(key)
            result.seen.append(key)
        progress.archived += 1
        result.records.append(record)
        result.folders.setdefault(date_folder(record.event.received_at), []).append(line)
    if intake.dead:
        result.folders[DEAD_LETTERS] = intake.dead
    return result


def _sift_producer(
    intake: Intake, producer: str, entries: Sequence[Entry], at: Position, *, pending: bool, now: str
) -> None:
    settled = intake.settled.setdefault(producer, [])
    for entry in entries:
        position = Position.parse(entry.entry_id)
        if entry.fields is None:
            # Nobody but the consumer trims, and only what is archived; the hole, if any, shows at the next entry.
            intake.trimmed += 1
        elif position <= at:
            intake.redelivered += 1
        else:
            start = at.seq + 1 if position.epoch == at.epoch else 1
            batch, problem = _open(entry)
            in_order = batch is not None and position.epoch == at.epoch and batch.first_seq <= start
            if not (in_order or pending):
                intake.recheck.add(producer)
                return
            if batch is None:
                _bury(intake, producer, entry, None, b"".join(entry.fields.values()), problem, now)
                if max(position) <= MAX_NUMBER:
                    _progress(intake, producer, position).dead_lettered += position.seq - start + 1
                    at = position
            else:
                _sift_batch(intake, producer, entry, batch, start, now)
                at = position
        settled.append(entry.entry_id)


def _sift_batch(intake: Intake, producer: str, entry: Entry, batch: Batch, start: int, now: str) -> None:
    progress = _progress(intake, producer, Position(batch.epoch, batch.last_seq))
    if batch.first_seq > start:
        progress.holes += 1
        progress.missing += batch.first_seq - start
        intake.notes.append(HoleFound(producer, batch.epoch, start - 1, batch.first_seq - start))
    for seq, line in enumerate(batch.lines, batch.first_seq):
        if seq < start:
            intake.redelivered += 1
            continue
        try:
            record = _decode_at(line, producer, Position(batch.epoch, seq))
        except BadEventError as error:
            progress.dead_lettered += 1
            _bury(intake, producer, entry, seq, line, str(error), now)
        else:
            intake.fresh.append((record, line))


def _decode_at(line: bytes, producer: str, position: Position) -> Record:
    record = decode(line)
    if record[1:] != (producer, *position):
        raise BadEventError(f"the line says that it is event {record.epoch}-{record.seq} of {record.producer}")
    return record


def _open(entry: Entry) -> tuple[Batch | None, str]:
    try:
        return from_entry(entry), ""
    except BadBatchError as error:
        return None, str(error)


def _progress(intake: Intake, producer: str, position: Position) -> Progress:
    progress = intake.progress.setdefault((producer, position.epoch), Progress(position.seq))
    progress.seq = position.seq
    return progress


def _bury(intake: Intake, producer: str, entry: Entry, seq: int | None, data: bytes, reason: str, now: str) -> None:
    """Write a dead letter: `data` as text if it is UTF-8, else `data_base64`; `seq` is null for a whole entry."""
    try:
        text, encoded = data.decode(), None
    except UnicodeDecodeError:
        text, encoded = None, base64.b64encode(data).decode()
    letter = {
        "schema": 1,
        "class": "dead_letter",
        "at": now,
        "producer": producer,
        "entry_id": entry.entry_id,
        "seq": seq,
        "reason": reason,
        "data": text,
        "data_base64": encoded,
    }
    intake.dead.append(orjson.dumps(letter, option=orjson.OPT_APPEND_NEWLINE))
    intake.notes.append(DeadLettered(producer, entry.entry_id, reason))


def _is_feedback(record: Record) -> bool:
    return isinstance(record.event, Feedback)
