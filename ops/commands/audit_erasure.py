"""`recollect audit --erased ID`: what is left of an erased user, and the receipts of the erasures.

Invariant: every place that telemetry or training writes to is searched: the archive's lines and dead letters, the
spool, the published models. What was received after the last erase was asked for is not left over: the user came back.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from service.config import Config
from service.errors import ModelError
from service.models import artefact, versions
from telemetry.archive.archive_snapshot import OpenFile, open_files
from telemetry.archive.dead_letters import parse
from telemetry.catalogue.commit import ErasureRequest
from telemetry.erasure.erasure import Receipt, digest, receipts
from telemetry.erasure.rewriting import LineMatcher
from telemetry.errors import ArchiveError
from telemetry.wal.slot_inspection import spooled_lines

_EVER: Final = "9999-12-31T23:59:59.999Z"


@dataclass(frozen=True)
class Search:
    """What was found.

    Attributes:
        user_id: Who was asked about, as typed.
        receipts: The erases of this user.
        left: By place: how many lines, letters or models hold the user and should not.
        since: By place: how many lines came after the erase.
        unread: Places that could not be searched, and why.
    """

    user_id: str
    receipts: Sequence[Receipt]
    left: dict[str, int]
    since: dict[str, int]
    unread: Sequence[str]

    @property
    def ok(self) -> bool:
        """Whether nothing is left, as far as anybody can tell."""
        return not self.left and not self.unread and all(receipt.done_at for receipt in self.receipts)


def search(config: Config, user_id: str) -> Search:
    """Look for a user.

    Args:
        config: Where everything is, and the key of the pseudonyms if there is one.
        user_id: The caller's id of the user.

    Returns:
        What was found.

    Raises:
        UsageError: The pseudonyms' key cannot be used.
        TelemetryError: The catalogue or the spool cannot be read.
    """
    pseudonyms = config.pseudonymiser()
    # From before there was a key, the id itself may be about.
    names = {user_id, pseudonyms.pseudonym(user_id)}
    digests = {digest(config.archive_dir, name) for name in names} if config.archive_dir.is_dir() else set()
    found = [receipt for receipt in receipts(config.archive_dir) if receipt.user_digest in digests]
    asked_at = max((receipt.requested_at for receipt in found), default=_EVER)
    users = LineMatcher(ErasureRequest("", name, "", _EVER) for name in names)
    left: Counter[str] = Counter()
    since: Counter[str] = Counter()
    unread: list[str] = []

    def note(place: str, received_at: str) -> None:
        (left if received_at <= asked_at else since)[place] += 1

    for slot, line in spooled_lines(config.spool_dir):
        if users.of(line) is not None:
            note(f"spool/{slot}", orjson.loads(line)["received_at"])
    with open_files(config.archive_dir) as files:
        for file in files:
            try:
                for received_at in _found_in(file, users):
                    note(f"archive/{file.path}", received_at)
            except ArchiveError as error:
                unread.append(str(error))
    for version in versions.published(config.models_dir):
        try:
            created = str(artefact.read_manifest(config.models_dir / version)["created"])
            known = artefact.load_users(config.models_dir / version).row_of
        except ModelError as error:
            unread.append(str(error))
            continue
        if names & known.keys() or (pseudonyms.active and any(pseudonyms.pseudonym(one) in names for one in known)):
            # A later model holds a user only for what they did since: training leaves the rest out.
            note(f"models/{version}", created)
    return Search(user_id, found, dict(left), dict(since), unread)


def _found_in(file: OpenFile, users: LineMatcher) -> Iterator[str]:
    """Yield when each of the users' lines in a file was received."""
    for line in file.read():
        if not file.is_letters:
            if users.of(line) is not None:
                yield orjson.loads(line)["received_at"]
            continue
        letter = parse(line)
        if users.of_remains(letter.data) is not None:
            yield letter.at


def tell(found: Search, *, as_json: bool) -> int:
    """Print what was found.

    Args:
        found: The search.
        as_json: Whether as one object.

    Returns:
        1 if something is left, or could not be searched, or the erase is still under way; else 0.
    """
    if as_json:
        print(json.dumps(_described(found), ensure_ascii=False))
        return 0 if found.ok else 1
    for receipt in found.receipts:
        state = f"done {receipt.done_at}" if receipt.done_at else "still under way"
        print(
            f"erase {receipt.erase_id}: asked for {receipt.requested_at}, {state}; {receipt.events} lines erased from "
            f"{receipt.files} files, {receipt.models} models published anew"
        )
    for place, count in sorted(found.left.items()):
        print(f"left: {count} in {place}")
    for place, count in sorted(found.since.items()):
        print(f"since the erase: {count} in {place}")
    for sentence in found.unread:
        print(f"not searched: {sentence}")
    print(_verdict(found))
    return 0 if found.ok else 1


def _described(found: Search) -> dict[str, Any]:
    names = ("erase_id", "requested_at", "done_at", "events", "files", "models")
    return {
        "user_id": found.user_id,
        "receipts": [{name: getattr(receipt, name) for name in names} for receipt in found.receipts],
        "left": found.left,
        "since": found.since,
        "unread": list(found.unread),
        "ok": found.ok,
    }


def _verdict(found: Search) -> str:
    who = json.dumps(found.user_id, ensure_ascii=False)
    if found.left:
        why = "" if found.receipts else "; no erasure of this user was requested"
        places = "1 place" if len(found.left) == 1 else f"{len(found.left)} places"
        return f"User {who} is in {places}{why}."
    if found.unread:
        return f"Nothing was found of user {who}, but not every place could be searched."
    if not found.receipts:
        return f"Nothing is known of user {who}, and no erasure of this user was requested."
    if not found.ok:
        return f"Nothing was found of user {who}, but the erase is still under way."
    return f"Nothing is left of user {who} from before the erase."
