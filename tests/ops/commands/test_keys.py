"""`recollect keys`, as operators call it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ops.commands.keys import app
from ops.console.command_runner import run
from ops.load.population import Target
from ops.options.presented_key import read_api_key
from service.errors import UsageError
from service.security.api_key import digest_of
from service.security.key_file import KeyFile

Recollect = Callable[..., tuple[int, str, str]]


@pytest.fixture
def recollect(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Recollect:
    monkeypatch.setenv("RECOLLECT_HOME", str(tmp_path / "var"))

    def call(*argv: str) -> tuple[int, str, str]:
        code = run(app, argv)
        return code, *capsys.readouterr()

    return call


def logged(tmp_path: Path) -> list[dict[str, Any]]:
    paths = (tmp_path / "var" / "security").glob("log-*.jsonl")
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def test_a_key_is_shown_once_and_kept_as_a_digest(recollect: Recollect, tmp_path: Path) -> None:
    """Standard output has only the key; no file has its secret."""
    code, out, err = recollect(
        "create",
        "--scope",
        "recommend,events",
        "--scope",
        "erase",
        "--expires",
        "90d",
        "--origin",
        "https://Shop.example",
    )
    text = out.strip()
    assert (code, out.count("\n")) == (0, 1)
    assert text not in err
    assert f"Key {text[3:11]} permits recommend, events, erase and expires at" in err
    assert "It is the first key: from now on every request needs one." in err
    assert "first" not in recollect("create", "--scope", "items")[2]
    secret = text.split("_", 2)[2]
    assert [path for path in (tmp_path / "var").rglob("*") if path.is_file() and secret in path.read_text()] == []
    record = (KeyFile(tmp_path / "var" / "security").read() or [])[0]
    assert (record.digest, record.origins) == (digest_of(text), ("https://shop.example",))
    entry = logged(tmp_path)[0]
    assert (entry["what"], entry["key"], entry["scopes"]) == (
        "key_create",
        text[3:11],
        ["recommend", "events", "erase"],
    )


def test_a_list_shows_the_state_of_each(recollect: Recollect) -> None:
    """As a table and as JSON, without digests."""
    assert "There are no keys in" in recollect("list")[1]
    assert recollect("list", "--json")[1] == "[]\n"
    made = json.loads(recollect("create", "--scope", "admin", "--note", "laptop", "--json")[1])
    other = json.loads(recollect("create", "--scope", "items", "--expires", "1h", "--json")[1])
    assert recollect("revoke", made["id"])[1].startswith(f"Key {made['id']} is revoked")
    shown = json.loads(recollect("list", "--json")[1])
    assert [(one["id"], one["state"]) for one in shown] == [(made["id"], "revoked"), (other["id"], "valid")]
    assert not {"digest", "key"} & set(shown[0])
    lines = recollect("list")[1].splitlines()
    assert lines[0].split() == ["id", "state", "scopes", "expires", "origins", "note"]
    assert lines[1].split()[1] == "revoked"
    assert lines[1].endswith("laptop")


def test_revoking_is_permanent_and_all_or_nothing(recollect: Recollect, tmp_path: Path) -> None:
    """By id or by the whole key; revoking again is no error; an unknown key changes nothing."""
    first = recollect("create", "--scope", "recommend")[1].strip()
    second = json.loads(recollect("create", "--scope", "recommend", "--json")[1])
    code, _, err = recollect("revoke", second["id"], "00000000")
    assert (code, err.count("\n")) == (2, 1)
    assert "There is no key '00000000'" in err
    mistyped = f"rk_0a1b2c3d_{'s' * 42}"
    code, _, err = recollect("revoke", mistyped)
    assert code == 2
    assert "There is no key 'rk_0a1b2c3d'" in err
    assert "sss" not in err
    assert json.loads(recollect("revoke", first, second["id"], "--json")[1]) == {"revoked": [first[3:11], second["id"]]}
    assert json.loads(recollect("revoke", first, "--json")[1]) == {"revoked": []}
    assert "was revoked before" in recollect("revoke", first)[1]
    assert [entry["what"] for entry in logged(tmp_path)] == ["key_create"] * 2 + ["key_revoke"] * 2


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["--scope", "root"], "'root' is no scope"),
        (["--scope", ","], "A key needs a scope"),
        ([], "Missing option '--scope'"),
        (["--scope", "admin", "--expires", "soon"], "is no duration"),
        (["--scope", "admin", "--origin", "shop.example"], "is no origin"),
        (["--scope", "admin", "--note", "x" * 81], "80 printable characters"),
    ],
)
def test_bad_usage_makes_nothing(recollect: Recollect, tmp_path: Path, argv: list[str], complaint: str) -> None:
    """Exit 2, one sentence, no file."""
    code, out, err = recollect("create", *argv)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert complaint in err
    assert not (tmp_path / "var").exists()


def test_a_command_presents_a_key_from_a_file(recollect: Recollect, tmp_path: Path) -> None:
    """As `create` printed it; other content is refused, and a target does not show it."""
    path = tmp_path / "key"
    path.write_text(recollect("create", "--scope", "recommend")[1])
    key = read_api_key(path)
    assert key == path.read_text().strip()
    target = Target("::1", 8080, "", key)
    assert target.headers == f"Host: [::1]:8080\r\nAuthorization: Bearer {key}\r\n"
    assert str(key) not in repr(target) + str(target)
    assert read_api_key(None) is None
    path.write_text("secret")
    with pytest.raises(UsageError, match="holds no API key"):
        read_api_key(path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_api_key(tmp_path / "absent")


def test_a_change_that_cannot_be_logged_is_not_made(recollect: Recollect, tmp_path: Path) -> None:
    """Every key has an entry."""
    made = json.loads(recollect("create", "--scope", "admin", "--json")[1])
    (path,) = (tmp_path / "var" / "security").glob("log-*.jsonl")
    path.unlink()
    path.mkdir()
    for argv in (["create", "--scope", "admin"], ["revoke", made["id"]]):
        code, out, err = recollect(*argv)
        assert (code, out) == (1, "")
        assert "The security log" in err
        assert "so no key was changed" in err
    assert [one["state"] for one in json.loads(recollect("list", "--json")[1])] == ["valid"]
