"""Pseudonyms are HMAC-SHA-256 of the id, always the same under one key, and a key file is refused in a sentence."""

import hashlib
import hmac
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.errors import KeyFileError
from telemetry.pseudonym import Pseudonymiser

KEY = bytes(range(32))


def key_file(path: Path, content: bytes = KEY, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


@given(key=st.binary(min_size=1, max_size=200), user_id=st.text(st.characters(exclude_categories=["Cs"])))
def test_a_pseudonym_is_an_hmac(key: bytes, user_id: str) -> None:
    """For keys of any length, those above SHA-256's block too."""
    expected = "p-" + hmac.new(key, user_id.encode(), hashlib.sha256).hexdigest()[:32]
    pseudonyms = Pseudonymiser(key)
    assert pseudonyms.pseudonym(user_id) == expected
    assert pseudonyms.pseudonym(user_id) == expected


def test_without_a_key_an_id_is_its_own_pseudonym() -> None:
    """None stays None, with a key or without."""
    assert Pseudonymiser().pseudonym("42") == "42"
    assert Pseudonymiser.from_file(None).active is False
    assert Pseudonymiser(KEY).pseudonym(None) is None


def test_an_id_with_a_lone_surrogate_has_a_pseudonym() -> None:
    """An operator's terminal can produce a lone surrogate."""
    assert Pseudonymiser(KEY).pseudonym("\udcff") != Pseudonymiser(KEY).pseudonym("\udcfe")


def test_the_key_is_not_shown(tmp_path: Path) -> None:
    """Neither the key nor its digests."""
    assert repr(Pseudonymiser.from_file(key_file(tmp_path / "key"))) == "<Pseudonymiser active=True>"


def test_the_bytes_of_the_file_are_the_key(tmp_path: Path) -> None:
    """All of them, a line break too; a symbolic link is followed, as secrets of orchestrators are mounted so."""
    (tmp_path / "link").symlink_to(key_file(tmp_path / "key", KEY + b"\n", 0o400))
    assert Pseudonymiser.from_file(tmp_path / "link").pseudonym("42") == Pseudonymiser(KEY + b"\n").pseudonym("42")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_key_file_open_to_other_users_is_refused(tmp_path: Path, mode: int) -> None:
    """The error holds the mode and the remedy."""
    with pytest.raises(KeyFileError, match=rf"has mode {mode:04o}\. .*chmod 600"):
        Pseudonymiser.from_file(key_file(tmp_path / "key", mode=mode))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a file of root's")
@pytest.mark.parametrize(("mode", "usable"), [(0o440, True), (0o640, True), (0o444, False), (0o460, False)])
def test_a_group_may_read_a_file_of_roots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, usable: bool
) -> None:
    """A mounted secret is root's, for the group of the process; to root itself it is a file like any other."""
    path = key_file(tmp_path / "key", mode=mode)
    with pytest.raises(KeyFileError, match="chmod 600"):
        Pseudonymiser.from_file(path)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    if usable:
        assert Pseudonymiser.from_file(path).active
    else:
        with pytest.raises(KeyFileError, match="chmod 600"):
            Pseudonymiser.from_file(path)


@pytest.mark.parametrize("size", [0, 31, 4097])
def test_a_key_of_the_wrong_size_is_refused(tmp_path: Path, size: int) -> None:
    """Short ones can be guessed; large ones are some other file."""
    with pytest.raises(KeyFileError, match=f"has {size} bytes. A key has 32 to 4096"):
        Pseudonymiser.from_file(key_file(tmp_path / "key", b"k" * size))


def test_a_key_that_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    """Missing, a directory, or a pipe without a writer, which must not block the start."""
    with pytest.raises(KeyFileError, match="cannot be read: No such file"):
        Pseudonymiser.from_file(tmp_path / "missing")
    with pytest.raises(KeyFileError, match="cannot be read: "):
        Pseudonymiser.from_file(Path("nul\0inside"))
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(KeyFileError, match="is not a regular file"):
            Pseudonymiser.from_file(path)
