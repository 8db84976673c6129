"""API keys: text and record, the key file, and the keyring."""

import math
import os
import re
import stat
import threading
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.config import from_env
from service.errors import KeysRefused, UsageError
from service.security.api_key import (
    KEY_LENGTH,
    KEY_PATTERN,
    SCOPES,
    ApiKey,
    digest_of,
    id_in,
    new_key,
    parse_duration_s,
    parse_note,
    parse_origin,
    parse_scopes,
)
from service.security.key_file import KeyFile
from service.security.keyring import Keyring
from service.security.security_log import append, new_entry

NOW_S = 1_800_000_000.0


def made(**more: object) -> tuple[str, ApiKey]:
    return new_key(("recommend", "events"), now_s=NOW_S, **more)  # type: ignore[arg-type]


def test_a_key_is_random_and_its_record_holds_only_the_digest() -> None:
    """Two keys share no secret, and the id is part of the text."""
    (first, record), (second, _) = made(), made()
    assert re.fullmatch(KEY_PATTERN, first)
    assert len(first) == KEY_LENGTH
    assert first.split("_", 2)[2] != second.split("_", 2)[2]
    assert record.id == first[3:11] == id_in(first)
    assert record.digest == digest_of(first)
    assert first.split("_", 2)[2] not in orjson.dumps(record.record()).decode()


def test_a_record_round_trips_through_json() -> None:
    """Every field, derived ones included."""
    _, key = made(expires_in_s=60, origins=("https://shop.example",), note="the shop")
    revoked = replace(key, revoked_at="2027-01-15T08:00:00.000Z")
    for one in (key, revoked, made()[1]):
        again = ApiKey.from_record(orjson.loads(orjson.dumps(one.record())))
        assert (again, again.granted, again.ends_s) == (one, one.granted, one.ends_s)


def test_a_key_ends_at_its_expiry_or_revocation() -> None:
    """It is valid one millisecond before its expiry."""
    _, key = made(expires_in_s=60)
    assert [key.state(NOW_S + after_s) for after_s in (0, 59.999, 60)] == ["valid", "valid", "expired"]
    assert replace(key, revoked_at=key.created_at).state(NOW_S) == "revoked"
    assert made()[1].ends_s == math.inf


def test_admin_grants_every_scope() -> None:
    """Other scopes grant themselves."""
    assert new_key(("admin",), now_s=NOW_S)[1].granted == set(SCOPES)
    assert made()[1].granted == {"recommend", "events"}


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://shop.example", "https://shop.example"),
        ("HTTPS://Shop.Example:443/", "https://shop.example"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://[::1]:80", "http://[::1]"),
    ],
)
def test_origins_are_normalised_as_browsers_send_them(text: str, origin: str) -> None:
    """Lower case, without a default port and a slash."""
    assert parse_origin(text) == origin


@pytest.mark.parametrize(
    "text",
    [
        "shop.example",
        "https://",
        "https://shop.example/path",
        "https://a@shop.example",
        "ftp://shop.example",
        "null",
        "https://shop.example:port",
        "https://*.example",
        "https://shop.example?x",
        "https://shöp.example",
        "https://a b",
    ],
)
def test_an_invalid_origin_is_refused(text: str) -> None:
    """The message shows a valid one."""
    with pytest.raises(UsageError, match=r"is no origin; write it as browsers send it"):
        parse_origin(text)


def test_scopes_durations_and_notes_are_checked() -> None:
    """Scopes are ordered and unique; a duration needs a unit."""
    assert parse_scopes(["events", "recommend", "events"]) == ("recommend", "events")
    assert [parse_duration_s(text) for text in ("90d", "36h", "2w", "5m", "7s")] == [7776000, 129600, 1209600, 300, 7]
    for text in ("90", "0d", "-1d", "1.5h", "d", "9999999d", "999999w", "٣d"):
        with pytest.raises(UsageError, match="is no duration"):
            parse_duration_s(text)
    with pytest.raises(
        UsageError, match="'foo' is no scope; the scopes are recommend, events, items, users, erase, admin"
    ):
        parse_scopes(["foo"])
    with pytest.raises(UsageError, match="A key needs a scope"):
        parse_scopes([])
    with pytest.raises(UsageError, match="printable"):
        parse_note("\x1b[31m")


def test_a_keyring_finds_a_key_by_its_whole_text() -> None:
    """One different character is no key."""
    keys = [made() for _ in range(3)]
    keyring = Keyring(record for _, record in keys)
    for text, record in keys:
        assert keyring.find(text) is record
        assert keyring.find(text[:-1] + ("A" if text[-1] != "A" else "B")) is None
        assert keyring.find("rk_00000000" + text[11:]) is None
        assert keyring.find(text + "A") is None
    assert keyring.count_valid(NOW_S) == 3


@given(st.text(max_size=80) | st.text(min_size=KEY_LENGTH, max_size=KEY_LENGTH))
def test_any_other_text_is_no_key(text: str) -> None:
    """And no text is an error."""
    assert Keyring([made()[1]]).find(text) is None


def test_the_key_file_is_private_under_any_umask(tmp_path: Path) -> None:
    """The folder too; a change gives the file another signature."""
    file = KeyFile(tmp_path / "var" / "security")
    assert (file.read(), file.signature()) == (None, None)
    assert not file.directory.exists()
    before = os.umask(0)
    try:
        with file.edit() as keys:
            keys.append(made()[1])
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (file.directory, *file.directory.iterdir())]
    assert modes == [0o700, 0o600, 0o600]
    first = file.signature()
    with file.edit() as keys:
        keys.append(made()[1])
    assert file.signature() != first
    assert len(file.read() or []) == 2


def test_files_made_by_root_belong_to_the_owner_of_the_home(tmp_path: Path) -> None:
    """The service's user can read the keys and append to the log. Run as another user, the files are that user's."""
    home = tmp_path / "var"
    home.mkdir()
    owner = (65534, 65534) if os.geteuid() == 0 else (os.geteuid(), home.stat().st_gid)
    os.chown(home, *owner)
    file = KeyFile(home / "security")
    with file.edit() as keys:
        keys.append(made()[1])
    append(file.directory, [new_entry("activate", by="training", key=None)])
    found = [path.stat() for path in (file.directory, *file.directory.iterdir())]
    assert [(one.st_uid, one.st_gid) for one in found] == [owner] * 4


def test_writers_take_turns(tmp_path: Path) -> None:
    """No key is lost by concurrent commands."""
    file = KeyFile(tmp_path)

    def add() -> None:
        for _ in range(5):
            with file.edit() as keys:
                keys.append(new_key(("items",), now_s=NOW_S, taken=[key.id for key in keys])[1])

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(file.read() or []) == 20
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keys.json", "keys.lock"]


def test_keys_may_be_elsewhere_under_another_name(tmp_path: Path) -> None:
    """As a mounted secret, which `..data` links to; the platform replaces that link at a change."""
    for number in (1, 2):
        with KeyFile(tmp_path / f"version-{number}").edit() as keys:
            keys += [made()[1] for _ in range(number)]
    mount = tmp_path / "mount"
    mount.mkdir()
    (mount / "..data").symlink_to(tmp_path / "version-1")
    (mount / "shop.json").symlink_to("..data/keys.json")
    file = KeyFile.of(from_env({"RECOLLECT_HOME": str(tmp_path), "RECOLLECT_KEYS_FILE": str(mount / "shop.json")}))
    before = file.signature()
    assert len(file.read() or []) == 1
    (mount / "..new").symlink_to(tmp_path / "version-2")
    (mount / "..new").replace(mount / "..data")
    assert file.signature() != before
    assert len(file.read() or []) == 2
    assert not (tmp_path / "security").exists()


def test_a_failed_change_leaves_the_file_unchanged(tmp_path: Path) -> None:
    """And leaves no other file."""
    file = KeyFile(tmp_path)
    with file.edit() as keys:
        keys.append(made()[1])

    def spoil() -> None:
        with file.edit() as keys:
            keys.append(made()[1])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        spoil()
    assert len(file.read() or []) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keys.json", "keys.lock"]


def _record(**changes: object) -> bytes:
    return orjson.dumps({"format": 1, "keys": [made()[1].record() | changes]})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is damaged: it is not JSON"),
        (b"{", "is damaged: it is not JSON"),
        (b"[]", "is damaged: it is not of format 1"),
        (b'{"format": 2, "keys": []}', "is damaged: it is not of format 1"),
        (b'{"format": 1, "keys": [7]}', "a key must be an object"),
        (_record(scopes=["root"]), "'root' is no scope"),
        (_record(tenant="other"), "is of another tenant"),
        (_record(digest="00"), "id or digest is malformed"),
        (_record(expires_at="soon"), "Invalid isoformat"),
        (_record(expires_at=7), "a key has the wrong fields"),
        (_record(created_at="2026-01-01T00:00:00"), "a time has no offset"),
        (_record(more=1), "a key has the wrong fields"),
        (_record(note="\x1b[31m"), "A note has 80 printable characters"),
        (b" " * ((4 << 20) + 1), "is over 4 MiB"),
    ],
)
def test_a_damaged_file_is_refused_with_its_fault(tmp_path: Path, content: bytes, reason: str) -> None:
    """No key of it is used, and a change does not overwrite it."""
    file = KeyFile(tmp_path)
    file.path.touch(0o600)
    file.path.write_bytes(content)
    with pytest.raises(KeysRefused, match=re.escape(reason)):
        file.read()
    with pytest.raises(KeysRefused, match=re.escape(reason)), file.edit():
        pass
    assert file.path.read_bytes() == content


def test_a_duplicate_id_is_refused(tmp_path: Path) -> None:
    """Which of the two keys counts would be undefined."""
    record = made()[1].record()
    file = KeyFile(tmp_path)
    file.path.touch(0o600)
    file.path.write_bytes(orjson.dumps({"format": 1, "keys": [record, record]}))
    with pytest.raises(KeysRefused, match="two keys have the same id"):
        file.read()


def test_a_writable_or_irregular_file_is_refused(tmp_path: Path) -> None:
    """A user with write access could make keys; a pipe must not hang the reader."""
    file = KeyFile(tmp_path)
    with file.edit() as keys:
        keys.append(made()[1])
    file.path.chmod(0o660)
    with pytest.raises(KeysRefused, match="has mode 0660, so others may change it: chmod 600"):
        file.read()
    file.path.unlink()
    os.mkfifo(file.path, 0o600)
    with pytest.raises(KeysRefused, match="is not a regular file"):
        file.read()


def test_a_lost_file_is_distinguished_from_one_that_never_existed(tmp_path: Path) -> None:
    """Removing the key file does not open the service; making a key repairs it."""
    file = KeyFile(tmp_path)
    with file.edit() as keys:
        keys.append(made()[1])
    file.path.unlink()
    with pytest.raises(KeysRefused, match=r"keys\.json is missing, but keys were made here"):
        file.read()
    with file.edit() as keys:
        keys.append(made()[1])
    assert len(file.read() or []) == 1
    file.path.unlink()
    (tmp_path / "keys.lock").unlink()
    assert file.read() is None
