"""Inspection of slots from outside: what was accepted, and what their write-ahead logs still hold.

Invariant: nothing is changed, and nothing that was durable before the inspection is missed: a slot's ring, whose cell
holds how far its epoch got, is read before its segments. A segment that is removed meanwhile is archived.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from telemetry.batch import MAX_NUMBER, Position
from telemetry.errors import SpoolError
from telemetry.wal.disk import RealDisk
from telemetry.wal.drops import DROP_KINDS
from telemetry.wal.frame import line_of, seq_of
from telemetry.wal.ring import read_ring
from telemetry.wal.segment import SUFFIX, SegmentContents, read_segment
from telemetry.wal.slot import is_held
from telemetry.wal.slot_identity import IDENTITY_FILE, SlotIdentity, decode_identity

_DISK = RealDisk()


@dataclass(frozen=True, slots=True)
class EpochHeld:
    """How far an epoch got, and what the slot holds of it."""

    producer: str
    epoch: int
    first_seq: int  # The first number held; `last_seq` + 1 if nothing is held any more.
    last_seq: int  # The last number that was accepted.
    events: int  # How many undamaged events are held.
    damaged: int  # How many numbers between the first and the last are unreadable.


@dataclass(frozen=True, slots=True)
class SlotAccount:
    """One slot."""

    slot: int
    directory: Path
    producer: str  # Empty if it is unreadable.
    epoch: int  # The last that began; 0 if it is unreadable.
    held: bool  # Whether a living process holds it.
    epochs: tuple[EpochHeld, ...]  # Every epoch that is known to have events, oldest first.
    unrecorded: Mapping[str, int]  # By class: events dropped or refused that no gap record counts yet.


def inspect_slots(spool: Path) -> list[SlotAccount]:
    """Return an account of every slot, by number; none if the directory does not exist.

    Raises:
        SpoolError: Something in it cannot be read.
    """
    try:
        return [_account(int(path.name), path) for path in _directories(spool)]
    except OSError as error:
        raise SpoolError(f"The spool {spool} cannot be read: {error.strerror}.") from None


def spooled_lines(spool: Path) -> Iterator[tuple[int, bytes]]:
    """Yield every line held, archived or not, with its slot.

    Raises:
        SpoolError: Something cannot be read.
    """
    try:
        for directory in _directories(spool):
            frames = read_ring(_DISK, directory).frames
            yield from ((int(directory.name), line_of(frame)) for frame in frames)
            for _, contents in _segments(directory):
                yield from ((int(directory.name), line) for line in contents.lines.values())
    except OSError as error:
        raise SpoolError(f"The spool {spool} cannot be read: {error.strerror}.") from None


def holds_events(directory: Path) -> bool:
    """Return quickly whether a slot may hold events; False only if it holds none.

    Raises:
        OSError: The directory cannot be read.
        SpoolError: Its ring cannot be read.
    """
    return any(name.endswith(SUFFIX) for name in _DISK.names(directory)) or bool(read_ring(_DISK, directory).frames)


def _directories(spool: Path) -> list[Path]:
    if not spool.is_dir():
        return []
    return sorted((path for path in spool.iterdir() if path.name.isdecimal()), key=lambda path: int(path.name))


def _account(slot: int, directory: Path) -> SlotAccount:
    held = is_held(directory)
    ring = read_ring(_DISK, directory)
    has_identity = IDENTITY_FILE in _DISK.names(directory)
    identity = (decode_identity(_DISK.read(directory / IDENTITY_FILE)) if has_identity else None) or SlotIdentity("", 0)
    epochs = _epochs(directory, identity, ring.durable, [seq_of(frame) for frame in ring.frames])
    unrecorded: dict[str, int] = {}
    for kind, drop in ring.drops.items():
        of_class = DROP_KINDS[kind].of_class
        unrecorded[of_class] = unrecorded.get(of_class, 0) + drop.events
    return SlotAccount(slot, directory, identity.producer, identity.epoch, held, epochs, unrecorded)


def _epochs(directory: Path, identity: SlotIdentity, durable: Position, ringed: list[int]) -> tuple[EpochHeld, ...]:
    numbers: dict[tuple[str, int], set[int]] = {}
    segments = sorted(_segments(directory), key=lambda one: one[1].header)
    for index, (name, contents) in enumerate(segments):
        key = contents.header[:2]
        if name in identity.replaced or key == identity.moving:
            continue
        # A segment's numbers end where the next one of its epoch begins.
        following = segments[index + 1][1].header if index + 1 < len(segments) else None
        end = following.first_seq if following is not None and following[:2] == key else None
        if key in identity.cut:
            end = min(identity.cut[key] + 1, end or MAX_NUMBER)
        numbers.setdefault(key, set()).update(seq for seq in contents.lines if end is None or seq < end)
    last = dict(identity.ended)
    if identity.producer and durable.epoch:
        key = (identity.producer, durable.epoch)
        last[key] = max(last.get(key, 0), durable.seq)
        if ringed:
            numbers.setdefault(key, set()).update(ringed)
    for key, held in numbers.items():
        last[key] = max(last.get(key, 0), *held)
    return tuple(
        _epoch_held(producer, epoch, last_seq, numbers.get((producer, epoch), set()))
        for (producer, epoch), last_seq in sorted(last.items())
        if last_seq
    )


def _epoch_held(producer: str, epoch: int, last_seq: int, numbers: set[int]) -> EpochHeld:
    first_seq = min(numbers, default=last_seq + 1)
    return EpochHeld(producer, epoch, first_seq, last_seq, len(numbers), last_seq - first_seq + 1 - len(numbers))


def _segments(directory: Path) -> list[tuple[str, SegmentContents]]:
    found = []
    for name in sorted(_DISK.names(directory)):
        if not name.endswith(SUFFIX):
            continue
        try:
            contents = read_segment(_DISK, directory / name)
        except FileNotFoundError:
            # Removed during the inspection, so its events are archived.
            continue
        if contents is not None:
            found.append((name, contents))
    return found
