"""Dead letters: what could not be archived as an event, kept with the reason until an operator decides.

Invariant: a letter's line is written once and never edited (only an erase removes it); whether it is settled is
a row beside it. A letter is open, `retrying` (taken by a retry that has not ended), `retried` or `dropped`.
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
from telemetry.catalogue.catalogue_file import ask
from telemetry.errors import ArchiveError, BadBatchError

Settled: TypeAlias = Literal["retrying", "retried", "dropped"]
_ID_DIGITS: Final = 32


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter.

    Attributes:
        letter_id: Its name.
        at: When it was written, RFC 3339.
        producer: Whose stream it came from.
        entry_id: The stream entry, `<epoch>-<last_seq>`.
        first_seq: The first number in it; None if it has no place in the sequence.
        seq: The number of its event; None for a whole entry.
        reason: RemovalReason it could not be archived.
        tries: How often that was tried.
        data: What came.
        settled: What was done about it, or None while it is open.
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
    settled: Settled | None = None

    @property
    def lines(self) -> list[bytes]:
        """Its events, if they are any."""
        return self.data.splitlines(keepends=True)

    @property
    def numbers(self) -> tuple[int, range]:
        """Its epoch and the numbers it accounts for."""
        try:
            epoch, last_seq = Position.parse(self.entry_id)
        except BadBatchError:
            return 0, range(0)
        if self.first_seq is None:
            return epoch, range(0)
        return epoch, range(self.first_seq, (self.seq or last_seq) + 1)


def compose(letter: Letter) -> bytes:
    """Write a letter as its line: `data` as text if it is UTF-8, else as `data_base64`."""
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


def parse(line: bytes) -> Letter:
    """Read a letter's line; one of an older version has no id of its own and gets one from its bytes.

    Args:
        line: As `compose` wrote it.

    Returns:
        The letter, not settled.

    Raises:
        ArchiveError: The line is not a letter.
    """
    try:
        fields: dict[str, Any] = orjson.loads(line)
        seq = fields["seq"]
        data = fields["data"]
        return Letter(
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
        raise ArchiveError(f"a line of the dead letters is not a letter: {error!r}") from None


def letters(root: Path, *, settled: bool = False) -> Iterator[Letter]:
    """Read the dead letters of an archive.

    Args:
        root: The archive's directory.
        settled: Also those that were retried or dropped.

    Yields:
        The oldest first.

    Raises:
        ArchiveError: The catalogue or a file cannot be read.
    """
    known: dict[str, Settled] = dict(ask(root, "SELECT letter_id, settled FROM letters", since=2))
    for line in read(root, dead_letters=True):
        letter = parse(line)
        state = known.get(letter.letter_id)
        if settled or state in {None, "retrying"}:
            yield replace(letter, settled=state)


def settle(root: Path, letter_ids: Sequence[str], how: Settled, at: str) -> None:
    """Say what was done about letters; the consumer may run meanwhile.

    Args:
        root: The archive's directory.
        letter_ids: Which.
        how: What.
        at: When, RFC 3339.

    Raises:
        ArchiveError: The catalogue cannot be written.
    """
    with closing(Catalogue(root)) as catalogue, catalogue.database.transaction():
        catalogue.database.sql.executemany(
            "INSERT INTO letters VALUES (?, ?, ?)"
            " ON CONFLICT (letter_id) DO UPDATE SET settled = excluded.settled, at = excluded.at",
            [(letter_id, how, at) for letter_id in letter_ids],
        )
