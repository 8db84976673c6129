"""Recovery of a slot: from the files of earlier processes to an empty ring and a new epoch.

Invariants:

- Every event of the last process that was durable or in the ring is kept. Frames of the ring go into segments under
  their numbers; those the disk has no room for were never durable, so they get numbers of the new epoch.
- A renumbering that was not completed did not happen: its segments are removed.
- Segments of another producer, which an operator copied here, are neither shipped nor removed.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from telemetry.events import position_of, renumber
from telemetry.ids import uuid7
from telemetry.settings import ProducerSettings
from telemetry.wal.disk import Disk
from telemetry.wal.frame import encode_frame, line_of
from telemetry.wal.journal import Journal
from telemetry.wal.ring import Ring
from telemetry.wal.slot import Slot
from telemetry.wal.slot_identity import SlotIdentity


@dataclass(frozen=True, slots=True)
class Recovered:
    """A slot that is ready for its new epoch."""

    identity: SlotIdentity  # The slot's identity, already saved, with the new epoch.
    ring: Ring  # The ring of the new epoch, with `frames` in it.
    frames: list[bytes]  # Events carried over into the new epoch, numbered from 1.
    events: int  # How many events earlier processes left, the carried ones included.
    was_clean: bool  # Whether the last process had shipped everything.


def recover(
    slot: Slot, journal: Journal, settings: ProducerSettings, disk: Disk, hit: Callable[[str], None]
) -> Recovered:
    """Recover a slot, fill its journal and begin its next epoch.

    Raises:
        OSError: The disk refused, or has no room for a ring.
        SpoolError: A segment is of a newer version, or cannot be read.
    """
    known = slot.identity
    journal.recover(*((known.replaced, known.cut) if known is not None else ()))
    ring = Ring.open(disk, slot.directory, min(settings.ring_bytes, settings.spool_bytes))
    if known is None:
        known = SlotIdentity(_find_producer(journal, ring) or uuid7(), 0, slot.is_new)
    producer, moving = known.producer, known.moving
    journal.discard(lambda header: (header.producer, header.epoch) == moving)
    journal.remove_discarded()
    journal.segments = [one for one in journal.segments if one.header.producer == producer]
    epoch = max(known.epoch, ring.epoch, journal.last.epoch) + 1
    ended = known.with_ended(producer, known.epoch, journal.last_seq(known.epoch))
    left: list[bytes] = []
    # A power cut restored a ring of an older epoch, or a renumbering left it: its events are in segments already.
    if ring.epoch >= known.epoch:
        last_seq, left = _write_ring(producer, ring, journal)
        ended = ended.with_ended(producer, ring.epoch, last_seq)
    frames = [encode_frame(seq, renumber(line_of(frame), producer, epoch, seq)) for seq, frame in enumerate(left, 1)]
    # Before the identity: carried frames must not lie in a ring that is behind it.
    ring.reset(epoch)
    for frame in frames:
        ring.append(frame)
        hit("spool.ringed")
    identity = replace(ended, epoch=epoch, clean=False, moving=None, replaced=())
    slot.save(identity)
    return Recovered(identity, ring, frames, journal.events + len(frames), known.clean)


def _find_producer(journal: Journal, ring: Ring) -> str | None:
    """Return the producer named by the events themselves."""
    if journal.segments:
        return journal.segments[-1].header.producer
    return next((position_of(line_of(frame)).producer for frame in ring.left.values()), None)


def _write_ring(producer: str, ring: Ring, journal: Journal) -> tuple[int, list[bytes]]:
    """Write the frames that the last process left in the ring to segments, one for each dense run of numbers.

    Returns:
        The last number of its epoch, and the frames that the disk has no room for.
    """
    last_seq = max(journal.last_seq(ring.epoch), ring.durable_seq)
    left = [(seq, frame) for seq, frame in ring.left.items() if seq > last_seq]
    while left:
        first_seq = left[0][0]
        run = [frame for number, (seq, frame) in enumerate(left, first_seq) if seq == number]
        try:
            journal.write(producer, ring.epoch, first_seq, run)
        except OSError:
            # These events get other numbers, so nothing of the failed write may come back.
            journal.remove_discarded()
            break
        journal.close_segment()
        last_seq = first_seq + len(run) - 1
        del left[: len(run)]
    return last_seq, [frame for _, frame in left]
