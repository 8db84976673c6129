"""The durable facts of a slot: its producer, its epochs, and its renumberings, in progress or complete.

Invariant: the file `producer.json` is one padded block, so it can be overwritten in place on a full disk.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import orjson

from telemetry.batch import Position

IDENTITY_FILE: Final = "producer.json"
# Enough for the audit of any recent past, and few enough for one block.
_MOST_EPOCHS = 40
_BLOCK_BYTES = 4096


def _no_epochs() -> Mapping[tuple[str, int], int]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class SlotIdentity:
    """What a slot's file holds.

    Attributes:
        producer: The producer id of its events.
        epoch: The last epoch that began.
        clean: Whether all events of that epoch were shipped at its end.
        ended: By (producer, epoch): the last number of epochs that are over, the newest forty.
        moving: The (producer, epoch) under which events are being renumbered, until that is complete.
        replaced: Names of segments whose events were renumbered under this identity; they are to be removed.
        cut: By (producer, epoch): the last number that counts in segments. Later events were renumbered.
        archive: The archive of its events; None until the first of them is shipped.
    """

    producer: str
    epoch: int
    clean: bool = False
    ended: Mapping[tuple[str, int], int] = field(default_factory=_no_epochs)
    moving: tuple[str, int] | None = None
    replaced: tuple[str, ...] = ()
    cut: Mapping[tuple[str, int], int] = field(default_factory=_no_epochs)
    archive: str | None = None

    def with_ended(self, producer: str, epoch: int, last_seq: int) -> "SlotIdentity":
        """Add the last number of an epoch, if it is beyond the known one; an epoch without events is not kept."""
        if last_seq <= self.ended.get((producer, epoch), 0):
            return self
        return replace(self, ended=_newest({**self.ended, (producer, epoch): last_seq}))

    def with_renumbered(self, after: Position) -> "SlotIdentity":
        """Cut the producer's events beyond a position, which have other numbers now."""
        kept = {key: seq for key, seq in self.ended.items() if key[0] != self.producer or key[1] < after.epoch}
        last_seq = min(after.seq, self.ended.get((self.producer, after.epoch), 0))
        cut = _newest({**self.cut, (self.producer, after.epoch): after.seq})
        return replace(self, ended=MappingProxyType(kept), cut=cut).with_ended(self.producer, after.epoch, last_seq)


def _newest(epochs: dict[tuple[str, int], int]) -> Mapping[tuple[str, int], int]:
    return MappingProxyType(dict(list(epochs.items())[-_MOST_EPOCHS:]))


def archive_of_slot(directory: Path) -> str | None:
    """Return the archive of the events in a slot's directory; None if nothing was shipped, or there is no slot."""
    with suppress(OSError):
        identity = decode_identity((directory / IDENTITY_FILE).read_bytes())
        return None if identity is None else identity.archive
    return None


def encode_identity(identity: SlotIdentity) -> bytes:
    """Return an identity as one padded block."""
    fields = {
        "producer": identity.producer,
        "epoch": identity.epoch,
        "clean": identity.clean,
        "ended": [[*key, last_seq] for key, last_seq in identity.ended.items()],
        "moving": identity.moving,
        "replaced": identity.replaced,
        "cut": [[*key, last_seq] for key, last_seq in identity.cut.items()],
        "archive": identity.archive,
    }
    data = orjson.dumps(fields)
    return data.ljust(-(-(len(data) + 1) // _BLOCK_BYTES) * _BLOCK_BYTES - 1) + b"\n"


def decode_identity(data: bytes) -> SlotIdentity | None:
    """Read an identity, also of an older version, which has the first three fields only; None if it is unreadable."""
    try:
        fields = orjson.loads(data)
        producer, epoch, clean = fields["producer"], fields["epoch"], fields["clean"]
        moving, archive = fields.get("moving"), fields.get("archive")
        identity = SlotIdentity(
            producer,
            epoch,
            clean,
            _read_epochs(fields.get("ended", [])),
            None if moving is None else (str(moving[0]), int(moving[1])),
            tuple(map(str, fields.get("replaced", []))),
            _read_epochs(fields.get("cut", [])),
            None if archive is None else str(archive),
        )
    except (orjson.JSONDecodeError, TypeError, KeyError, IndexError, ValueError, AttributeError):
        return None
    if not (type(producer) is str and producer and type(epoch) is int and epoch >= 1 and type(clean) is bool):
        return None
    return identity


def _read_epochs(rows: list[list[Any]]) -> Mapping[tuple[str, int], int]:
    return MappingProxyType({(str(row[0]), int(row[1])): int(row[2]) for row in rows})
