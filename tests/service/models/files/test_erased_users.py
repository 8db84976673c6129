"""The list of erased users: how it is read, what it keeps of a request, and who leaves it."""

import json
from pathlib import Path

from service.models.files.erased_users import TEMPORARY_DAYS, ErasedAt, ErasedUsers, list_erased
from service.models.vocabulary import Vocabulary
from telemetry.ids import rfc3339_ms
from telemetry.pseudonym import Pseudonymiser

PLAIN = Pseudonymiser()
NOW_S = 1_700_000_000


def at(listed_s: int) -> ErasedAt:
    """Return the times of a user who is listed without a request."""
    return ErasedAt(listed_s, listed_s * 1000 + 999)


def test_the_list_reads_back_and_keeps_a_users_latest_time(tmp_path: Path) -> None:
    """With the salt that its digests were made with."""
    ErasedUsers.read(tmp_path).with_erased(["ann", "bob"], NOW_S).with_erased(["ann"], NOW_S + 9).write(tmp_path)
    read = ErasedUsers.read(tmp_path)
    assert read.erased_rows(Vocabulary(["eve", "ann", "bob"]), PLAIN) == {1: at(NOW_S + 9), 2: at(NOW_S)}
    assert b"ann" not in (tmp_path / "forgotten.json").read_bytes()


def test_a_list_of_the_first_format_is_read_and_all_its_users_stay(tmp_path: Path) -> None:
    """It is written in the present format with the next erase."""
    salt = b"s" * 32
    digest = Pseudonymiser(salt).pseudonym("ann")
    old = {"format": 1, "salt": salt.hex(), "users": {digest: "2023-11-14T22:13:20.000Z"}}
    (tmp_path / "forgotten.json").write_text(json.dumps(old))
    ErasedUsers.read(tmp_path).with_erased(["bob"], NOW_S + 100 * TEMPORARY_DAYS * 86_400).write(tmp_path)
    written = json.loads((tmp_path / "forgotten.json").read_bytes())
    assert written["format"] == 2
    assert written["users"] == old["users"]
    assert len(written["passing"]) == 1


def test_users_of_no_model_are_temporary_and_those_of_one_stay() -> None:
    """They expire by time and by number; a permanent user erased again has one entry with the later time."""
    vocabulary = Vocabulary(["a", "b", "c", "d", "e"])
    listed = ErasedUsers(b"s" * 32, {}).with_erased(["a", "b"], NOW_S).with_permanent(["a", "z"])
    assert listed.erased_rows(vocabulary, PLAIN) == {0: at(NOW_S), 1: at(NOW_S)}
    week_later_s = NOW_S + TEMPORARY_DAYS * 86_400
    listed = listed.with_erased(["c"], week_later_s - 1)
    assert listed.erased_rows(vocabulary, PLAIN) == {0: at(NOW_S), 1: at(NOW_S), 2: at(week_later_s - 1)}
    listed = listed.with_erased(["a"], week_later_s)
    assert listed.erased_rows(vocabulary, PLAIN) == {0: at(week_later_s), 2: at(week_later_s - 1)}
    assert (len(listed.permanent_s), len(listed.temporary_s)) == (1, 1)
    listed = listed.with_erased(["d"], week_later_s + 1, 3).with_erased(["e", "x", "y"], week_later_s + 2, 3)
    assert listed.erased_rows(vocabulary, PLAIN) == {0: at(week_later_s), 4: at(week_later_s + 2)}


def test_a_repeated_request_changes_no_time_and_a_later_one_both(tmp_path: Path) -> None:
    """Also within the second in which the user was listed; what had no request then has one now."""
    ErasedUsers.read(tmp_path).with_erased(["bob"], NOW_S - 5).with_permanent(["bob"]).write(tmp_path)
    requested = {name: rfc3339_ms(NOW_S + 0.25) for name in ("ann", "bob")}
    first = dict.fromkeys(requested, ErasedAt(NOW_S + 9, NOW_S * 1000 + 250))
    assert list_erased(tmp_path, requested, NOW_S + 9.1) == first
    read = ErasedUsers.read(tmp_path)
    assert list_erased(tmp_path, requested, NOW_S + 99) == first
    assert ErasedUsers.read(tmp_path) == read
    later = list_erased(tmp_path, {"ann": rfc3339_ms(NOW_S + 9.2)}, NOW_S + 9.3)
    assert later == {"ann": ErasedAt(NOW_S + 9, NOW_S * 1000 + 9200)}
    changed = ErasedUsers.read(tmp_path).since(read).erased_rows(Vocabulary(["ann", "bob"]), PLAIN)
    assert changed == {0: later["ann"]}
    # An older release writes no requests.
    content = json.loads((tmp_path / "forgotten.json").read_bytes())
    del content["requested"]
    (tmp_path / "forgotten.json").write_text(json.dumps(content))
    assert ErasedUsers.read(tmp_path).erased_rows(Vocabulary(["ann"]), PLAIN) == {0: at(NOW_S + 9)}
