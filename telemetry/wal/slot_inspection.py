"""Looking into the slots from outside: what was accepted, and what their logs still hold.

Invariant: nothing is changed, and nothing that was durable before the look began is overlooked: a slot's ring, whose
cell says how far its epoch got, is read before its segments. A segment that is removed meanwhile was in the archive.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from telemetry.batch import MAX_NUMBER, Position
from telemetry.errors import SpoolError
from telemetry.producer import DROP_KINDS
from telemetry.wal.disk import RealDisk
from telemetry.wal.frame import line_of, seq_of
from telemetry.wal.ring import peek
from telemetry.wal.segment import SUFFIX, Found, read_whole
from telemetry.wal.slot import IDENTITY, Identity, decode_identity, is_held

_DISK = RealDisk()


@dataclass(frozen=True, slots=True)
class EpochHeld:
    """How far an epoch got, and what the slot's log holds of it.

    Attributes:
        producer: Whose epoch.
        epoch: Which one.
        first_seq: The first number held; `last_seq` + 1 if nothing is held any more.
        last_seq: The last number that was accepted.
        events: How many undamaged events are held.
        damaged: How many numbers between the first and the last cannot be read.
    """

    producer: str
    epoch: int
    first_seq: int
    last_seq: int
    events: int
    damaged: int


@dataclass(frozen=True, slots=True)
class SlotAccount:
    """One slot.

    Attributes:
        slot: Its number.
        directory: `spool/<slot>/`.
        producer: Its producer; empty if it cannot be read.
        epoch: The last epoch that was begun; 0 if it cannot be read.
        held: Whether a living process holds it.
        epochs: Every epoch that is known to have events, oldest first.
        unrecorded: By class: events dropped or refused that no gap record tells of yet.
    """

    slot: int
    directory: Path
    producer: str
    epoch: int
    held: bool
    epochs: tuple[EpochHeld, ...]
    unrecorded: Mapping[str, int]


def inspect_slots(spool: Path) -> list[SlotAccount]:
    """Take stock of every slot.

    Args:
        spool: The directory that holds all slots.

    Returns:
        One account for each, by number; none if there is no such directory.

    Raises:
        SpoolError: Something in it cannot be read.
    """
    try:
        return [_account(int(path.name), path) for path in _directories(spool)]
    except OSError as error:
        raise SpoolError(f"the spool {spool} cannot be read: {error.strerror}") from None


def spooled_lines(spool: Path) -> Iterator[tuple[int, bytes]]:
    """Read everything that is held, whether or not the archive has it, too.

    Args:
        spool: The directory that holds all slots.

    Yields:
        (slot, line).

    Raises:
        SpoolError: Something in it cannot be read.
    """
    try:
        for directory in _directories(spool):
            _, ringed, _ = peek(_DISK, directory)
            yield from ((int(directory.name), line_of(record)) for record in ringed)
            for _, found in _segments(directory):
                yield from ((int(directory.name), line) for line in found.lines.values())
    except OSError as error:
        raise SpoolError(f"the spool {spool} cannot be read: {error.strerror}") from None


def holds_events(directory: Path) -> bool:
    """Tell, quickly, whether a slot may hold something that the archive lacks.

    Args:
        directory: `spool/<slot>/`.

    Returns:
        False only if there is nothing at all.

    Raises:
        OSError: It cannot be looked into.
        SpoolError: Its ring cannot be read.
    """
    return any(name.endswith(SUFFIX) for name in _DISK.names(directory)) or bool(peek(_DISK, directory)[1])


def _directories(spool: Path) -> list[Path]:
    if not spool.is_dir():
        return []
    return sorted((path for path in spool.iterdir() if path.name.isdecimal()), key=lambda path: int(path.name))


def _account(slot: int, directory: Path) -> SlotAccount:
    held = is_held(directory)
    at, ringed, drops = peek(_DISK, directory)
    has_identity = IDENTITY in _DISK.names(directory)
    identity = (decode_identity(_DISK.read(directory / IDENTITY)) if has_identity else None) or Identity("", 0)
    epochs = _epochs(directory, identity, at, [seq_of(record) for record in ringed])
    unrecorded: dict[str, int] = {}
    for kind, drop in drops.items():
        of_class, _ = DROP_KINDS[kind]
        unrecorded[of_class] = unrecorded.get(of_class, 0) + drop.events
    return SlotAccount(slot, directory, identity.producer, identity.epoch, held, epochs, unrecorded)


def _epochs(directory: Path, identity: Identity, at: Position, ringed: list[int]) -> tuple[EpochHeld, ...]:
    numbers: dict[tuple[str, int], set[int]] = {}
    segments = sorted(_segments(directory), key=lambda one: one[1].header)
    for index, (name, found) in enumerate(segments):
        if name in identity.replaced or found.header[:2] == identity.moving:
            continue
        # A segment's numbers end where the next one of its epoch begins.
        following = segments[index + 1][1].header if index + 1 < len(segments) else None
        end = following.first_seq if following is not None and following[:2] == found.header[:2] else None
        if found.header[:2] in identity.cut:
            end = min(identity.cut[found.header[:2]] + 1, end or MAX_NUMBER)
        numbers.setdefault(found.header[:2], set()).update(seq for seq in found.lines if end is None or seq < end)
    last = dict(identity.ended)
    if identity.producer and at.epoch:
        key = (identity.producer, at.epoch)
        last[key] = max(last.get(key, 0), at.seq)
        if ringed:
            numbers.setdefault(key, set()).update(ringed)
    for key, held in numbers.items():
        last[key] = max(last.get(key, 0), *held)
    return tuple(
        _held(producer, epoch, last_seq, numbers.get((producer, epoch), set()))
        for (producer, epoch), last_seq in sorted(last.items())
        if last_seq
    )


def _held(producer: str, epoch: int, last_seq: int, numbers: set[int]) -> EpochHeld:
    first_seq = min(numbers, default=last_seq + 1)
    return EpochHeld(producer, epoch, first_seq, last_seq, len(numbers), last_seq - first_seq + 1 - len(numbers))


def _segments(directory: Path) -> list[tuple[str, Found]]:
    found = []
    for name in sorted(_DISK.names(directory)):
        if not name.endswith(SUFFIX):
            continue
        try:
            whole = read_whole(_DISK, directory / name)
        except FileNotFoundError:
            # Removed since we looked, so the archive has it.
            continue
        if whole is not None:
            found.append((name, whole))
    return found
