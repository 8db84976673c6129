"""Renumbering of a slot's events under another producer id or epoch, because the stream cannot take the old numbers.

Invariant: an event counts under one number at any time. The new segments do not count before the identity names them;
from then on the old ones do not, even where the disk cannot remove them yet.
"""

from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from telemetry.batch import Position
from telemetry.events import renumber
from telemetry.wal.frame import encode_frame
from telemetry.wal.journal import Journal
from telemetry.wal.slot import Slot
from telemetry.wal.slot_identity import SlotIdentity

# The most that one write takes.
_WRITE_BYTES = 1024 * 1024
_WRITE_LINES = 10_000


class Renumbered(NamedTuple):
    """The last number of the new epoch, and how many events stay behind with the old stream."""

    last_seq: int
    left_behind: int


def renumber_after(
    slot: Slot, journal: Journal, identity: SlotIdentity, after: Position, *, producer: str, epoch: int
) -> Renumbered:
    """Rewrite every durable event after a position under new numbers, and save the new identity.

    Events up to `after`, the last position that the old stream is known to have, stay behind. `identity` has the last
    number of the current epoch in `ended`; `epoch` is above any of the same producer.

    Raises:
        OSError: The disk refused; the identity is as before.
    """
    journal.close_segment()
    # Another producer's stream takes only what is written from now on. A segment that only ends beyond the position
    # keeps the events up to it, which the archive may still lack.
    staying = [one for one in journal.segments if one.first <= after and producer == identity.producer]
    old = [one for one in journal.segments if one not in staying]
    old_headers = {segment.header for segment in old}
    held = sum(segment.events for segment in old)
    held += sum(one.last_seq - after.seq for one in staying if one.last > after)
    try:
        slot.save(replace(identity, moving=(producer, epoch)))
        last_seq = _copy(journal, after, producer, epoch)
        replaced = (*journal.discarded, *(segment.path.name for segment in old))
        moved = identity.with_renumbered(after)
        slot.save(replace(moved, producer=producer, epoch=epoch, clean=False, replaced=replaced))
    except OSError:
        journal.discard(lambda header: header[:2] == (producer, epoch))
        raise
    for one in staying:
        if one.header.epoch == after.epoch:
            one.last_seq = min(one.last_seq, after.seq)
    journal.discard(lambda header: header in old_headers)
    # The saved identity excludes the old segments; the next recovery removes those that the disk keeps now.
    with suppress(OSError):
        journal.remove_discarded()
    return Renumbered(last_seq, held - last_seq)


def _copy(journal: Journal, after: Position, producer: str, epoch: int) -> int:
    seq, position, last = 0, after, journal.last
    while position < last:
        run = journal.read(position, _WRITE_LINES, _WRITE_BYTES)
        if run is None or run.last > last:
            # The rest is damaged, or has its new numbers already.
            break
        frames = [
            encode_frame(number, renumber(line, producer, epoch, number))
            for number, line in enumerate(run.lines, seq + 1)
        ]
        journal.write(producer, epoch, seq + 1, frames)
        seq, position = seq + len(frames), run.last
    return seq
