"""`recollect audit --erased ID`: what is left of an erased user, and the receipts of the erasures.

Invariant: every place that telemetry, training or generation writes to by default is searched: the archive's lines and
dead letters, the spool, the state snapshot, the published models, the generated lists. Lines received after the last
erase request are not left over: the user came back.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from ops.commands.audit_lists import search_lists
from service.config import Config
from service.errors import ModelError
from service.models.files import artefact, versions
from service.models.files.erased_users import rows_of, user_keys
from telemetry.archive.archive_snapshot import OpenFile, open_files
from telemetry.archive.dead_letters import decode_letter
from telemetry.catalogue.commit import ErasureRequest
from telemetry.erasure.erasure import ErasureReceipt, falls_under, read_receipts, user_digest
from telemetry.erasure.line_matcher import LineMatcher
from telemetry.errors import ArchiveError, StateError
from telemetry.ids import rfc3339_ms
from telemetry.live.state_snapshot import StateSnapshot
from telemetry.wal.slot_inspection import spooled_lines

_END_OF_TIME: Final = "9999-12-31T23:59:59.999Z"


@dataclass(frozen=True)
class ErasureSearch:
    """The result of a search.

    Attributes:
        user_id: The user, as typed.
        receipts: The erasures of this user.
        left: By place: how many lines, letters, models or lists hold the user and should not.
        since: By place: how many lines came after the erase request.
        unread: Places that could not be searched, and why.
    """

    user_id: str
    receipts: Sequence[ErasureReceipt]
    left: dict[str, int]
    since: dict[str, int]
    unread: Sequence[str]

    @property
    def ok(self) -> bool:
        """Whether everything was searched, nothing is left, and every erasure is done."""
        return not self.left and not self.unread and all(receipt.done_at for receipt in self.receipts)


def search(config: Config, user_id: str) -> ErasureSearch:
    """Search for a user."""
    pseudonyms = config.pseudonymiser()
    # Lines from before there was a key have the id itself.
    keys = frozenset(user_keys(user_id, pseudonyms))
    digests = {user_digest(config.archive_dir, key) for key in keys} if config.archive_dir.is_dir() else set()
    receipts = [receipt for receipt in read_receipts(config.archive_dir) if receipt.user_digest in digests]
    requested_at = max((receipt.requested_at for receipt in receipts), default=_END_OF_TIME)
    matcher = LineMatcher(ErasureRequest("", key, "", _END_OF_TIME) for key in keys)
    left: Counter[str] = Counter()
    since: Counter[str] = Counter()
    unread: list[str] = []

    def count(place: str, received_at: str) -> None:
        (left if falls_under(received_at, requested_at) else since)[place] += 1

    for slot, line in spooled_lines(config.spool_dir):
        if matcher.match(line) is not None:
            count(f"spool/{slot}", orjson.loads(line)["received_at"])
    with open_files(config.archive_dir) as files:
        for file in files:
            try:
                for received_at in _times_in(file, matcher):
                    count(f"archive/{file.path}", received_at)
            except ArchiveError as error:
                unread.append(str(error))
    try:
        snapshot = StateSnapshot.open(config.state_dir)
        for event in (event for key in sorted(keys) for event in snapshot.stored_events(key)):
            count("state", rfc3339_ms(event.received_ms / 1000))
    except StateError as error:
        unread.append(str(error))
    for version in versions.published(config.models_dir):
        try:
            created = str(artefact.read_manifest(config.models_dir / version)["created"])
            model_users = artefact.load_users(config.models_dir / version)
        except ModelError as error:
            unread.append(str(error))
            continue
        if rows_of(model_users, keys, pseudonyms):
            # A later model holds a user only for later interactions: training leaves the others out.
            count(f"models/{version}", created)
    for place, made_at in search_lists(config, keys, pseudonyms, unread):
        # As of models: later lists hold a user only for what the user did since.
        count(place, made_at)
    return ErasureSearch(user_id, receipts, dict(left), dict(since), unread)


def _times_in(file: OpenFile, matcher: LineMatcher) -> Iterator[str]:
    """Yield when each of the users' lines in a file was received."""
    for line in file.read():
        if file.is_dead_letters:
            letter = decode_letter(line)
            if matcher.match_letter(line) is not None:
                yield letter.at
        elif matcher.match(line) is not None:
            yield orjson.loads(line)["received_at"]


def print_search(found: ErasureSearch, *, as_json: bool) -> int:
    """Print a search, on request as one object; returns 0 if it is `ok`, else 1."""
    if as_json:
        print(json.dumps(_described(found), ensure_ascii=False))
        return 0 if found.ok else 1
    for receipt in found.receipts:
        state = f"done {receipt.done_at}" if receipt.done_at else "still under way"
        print(
            f"erase {receipt.erase_id}: requested {receipt.requested_at}, {state}; {receipt.events} lines erased from "
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


def _described(found: ErasureSearch) -> dict[str, Any]:
    names = ("erase_id", "requested_at", "done_at", "events", "files", "models")
    return {
        "user_id": found.user_id,
        "receipts": [{name: getattr(receipt, name) for name in names} for receipt in found.receipts],
        "left": found.left,
        "since": found.since,
        "unread": list(found.unread),
        "ok": found.ok,
    }


def _verdict(found: ErasureSearch) -> str:
    user = json.dumps(found.user_id, ensure_ascii=False)
    if found.left:
        why = "" if found.receipts else "; no erasure of this user was requested"
        places = "1 place" if len(found.left) == 1 else f"{len(found.left)} places"
        return f"User {user} is in {places}{why}."
    if found.unread:
        return f"Nothing was found of user {user}, but not every place could be searched."
    if not found.receipts:
        return f"Nothing was found of user {user}, and no erasure of this user was requested."
    if not found.ok:
        return f"Nothing was found of user {user}, but the erasure is still under way."
    return f"Nothing is left of user {user} from before the erase request."
