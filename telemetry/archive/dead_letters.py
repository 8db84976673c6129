"""Dead letters: input that could not be archived as an event, kept with the reason until an operator decides.

Invariant: a letter's line is written once and never edited (only an erasure removes it); its state is a row in the
catalogue. A letter is open, `retrying` (by a retry that has not ended), `retried` or `dropped`.
"""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import orjson

from telemetry.archive.archive_reader import read
from telemetry.batch import Position
from telemetry.catalogue.catalogue import Catalogue
from telemetry.catalogue.catalogue_file import query_catalogue
from telemetry.errors import ArchiveError, BadBatchError

LetterState: TypeAlias = Literal["retrying", "retried", "dropped"]
_ID_DIGITS: Final = 32


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter.

    Attributes:
        letter_id: Its id.
        at: When it was written, RFC 3339.
        producer: The producer of the entry.
        entry_id: The stream entry, `<epoch>-<last_seq>`.
        first_seq: The first sequence number in it; None if it has no place in the sequence.
        seq: The sequence number of its event; None for a whole entry.
        reason: Why it could not be archived.
        tries: How often that was tried.
        data: The input.
        state: None while it is open.
    """

    letter_id: str
    at: str
    producer: str
    entry_id: str
    first_seq: int | None
    seq: int | None
    reason: str
    tries: int
    data: bytes
    state: LetterState | None = None

    @property
    def lines(self) -> list[bytes]:
        """Its data as lines."""
        return self.data.splitlines(keepends=True)

    @property
    def seqs(self) -> tuple[int, range]:
        """Its epoch and the sequence numbers it accounts for."""
        try:
            epoch, last_seq = Position.parse(self.entry_id)
        except BadBatchError:
            return 0, range(0)
        if self.first_seq is None:
            return epoch, range(0)
        return epoch, range(self.first_seq, (self.seq or last_seq) + 1)


def encode_letter(letter: DeadLetter) -> bytes:
    """Return a letter's line: `data` as text if it is UTF-8, else as `data_base64`."""
    try:
        text, encoded = letter.data.decode(), None
    except UnicodeDecodeError:
        text, encoded = None, base64.b64encode(letter.data).decode()
    fields = {
        "schema": 1,
        "class": "dead_letter",
        "letter_id": letter.letter_id,
        "at": letter.at,
        "producer": letter.producer,
        "entry_id": letter.entry_id,
        "first_seq": letter.first_seq,
        "seq": letter.seq,
        "reason": letter.reason,
        "tries": letter.tries,
        "data": text,
        "data_base64": encoded,
    }
    return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)


def decode_letter(line: bytes) -> DeadLetter:
    """Read a letter's line, as an open letter; one of an older version has no id and gets one from its bytes."""
    try:
        fields: dict[str, Any] = orjson.loads(line)
        seq = fields["seq"]
        data = fields["data"]
        return DeadLetter(
            fields.get("letter_id") or hashlib.sha256(line).hexdigest()[:_ID_DIGITS],
            fields["at"],
            fields["producer"],
            fields["entry_id"],
            fields.get("first_seq", seq),
            seq,
            fields["reason"],
            fields.get("tries", 1),
            base64.b64decode(fields["data_base64"]) if data is None else data.encode(),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ArchiveError(f"A line of the dead letters is not a letter: {error!r}.") from None


def read_letters(root: Path, *, settled: bool = False) -> Iterator[DeadLetter]:
    """Read the open dead letters of an archive, oldest first; on request also those that were retried or dropped."""
    states: dict[str, LetterState] = dict(query_catalogue(root, "SELECT letter_id, settled FROM letters", since=2))
    for line in read(root, dead_letters=True):
        letter = decode_letter(line)
        state = states.get(letter.letter_id)
        if settled or state in {None, "retrying"}:
            yield replace(letter, state=state)


def set_state(root: Path, letter_ids: Sequence[str], state: LetterState, at: str) -> None:
    """Store the state of letters; a consumer may run concurrently."""
    with closing(Catalogue(root)) as catalogue, catalogue.database.transaction():
        catalogue.database.sql.executemany(
            "INSERT INTO letters VALUES (?, ?, ?)"
            " ON CONFLICT (letter_id) DO UPDATE SET settled = excluded.settled, at = excluded.at",
            [(letter_id, state, at) for letter_id in letter_ids],
        )
