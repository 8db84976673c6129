"""The gate by key, scope, time and origin, and the watcher that puts a changed key file in force."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from multidict import CIMultiDict

from service.config import Config
from service.errors import Forbidden, KeysRefused, Unauthorized, UsageError
from service.security.api_key import SCOPES, ApiKey, Scope, new_key
from service.security.exposure import insecure_warning, is_loopback, require_keys
from service.security.gate import Gate
from service.security.key_file import KeyFile
from service.security.key_watch import KeyWatcher
from service.security.keyring import Keyring
from service.serving.app import ROUTES

NOW_S = 1_800_000_000.0


def headers(**values: str) -> CIMultiDict[str]:
    return CIMultiDict({name.replace("_", "-"): value for name, value in values.items()})


def gate(*records: ApiKey, now_s: float = NOW_S) -> Gate:
    return Gate(Keyring(records), clock_s=lambda: now_s)


def test_without_keys_every_request_is_admitted() -> None:
    """With any credentials."""
    assert Gate().admit(headers(), "erase") is None
    assert Gate().admit(headers(Authorization="Bearer nonsense"), "erase") is None


def test_a_key_is_accepted_in_either_header() -> None:
    """The scheme is case-insensitive (RFC 9110 section 11.1); X-API-Key has precedence."""
    text, record = new_key(("recommend",), now_s=NOW_S)
    asked = gate(record)
    for presented in (
        headers(Authorization=f"Bearer {text}"),
        headers(authorization=f"bEARER {text}"),
        headers(authorization=f"Bearer   {text}"),
        headers(X_API_Key=text),
        headers(x_api_key=text, Authorization="Basic dXNlcjpwYXNz"),
    ):
        assert asked.admit(presented, "recommend") == record.id
    with pytest.raises(Unauthorized):
        asked.admit(headers(X_API_Key="rk_wrong", Authorization=f"Bearer {text}"), "recommend")


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer ", "Basic abc", "KEY", "Bearer rk_00000000_" + "A" * 43])
def test_other_credentials_are_401(value: str) -> None:
    """With a challenge (RFC 6750 section 3)."""
    with pytest.raises(Unauthorized) as refused:
        gate(new_key(("admin",), now_s=NOW_S)[1]).admit(headers(Authorization=value), "recommend")
    assert refused.value.challenge.startswith('Bearer realm="recollect"')
    with pytest.raises(Unauthorized, match="This needs an API key"):
        gate().admit(headers(), "recommend")


def test_an_ended_key_is_401_with_its_end() -> None:
    """Only a client with its secret learns the end."""
    text, record = new_key(("recommend",), now_s=NOW_S, expires_in_s=60)
    presented = headers(Authorization=f"Bearer {text}")
    assert gate(record, now_s=NOW_S + 59.9).admit(presented, "recommend") == record.id
    with pytest.raises(Unauthorized, match=rf"Key {record.id} expired at 2027-01-15T08:01:00.000Z"):
        gate(record, now_s=NOW_S + 60).admit(presented, "recommend")
    revoked = replace(record, revoked_at="2027-01-15T08:00:01.000Z")
    with pytest.raises(Unauthorized, match=rf"Key {record.id} was revoked at 2027-01-15T08:00:01.000Z"):
        gate(revoked).admit(presented, "recommend")
    with pytest.raises(Unauthorized, match="does not have the key"):
        gate(revoked).admit(headers(Authorization=f"Bearer {text[:-2]}AA"), "recommend")


@pytest.mark.parametrize("held", SCOPES)
@pytest.mark.parametrize("wanted", SCOPES)
def test_a_scope_grants_itself_and_admin_grants_all(held: Scope, wanted: Scope) -> None:
    """403 names the missing scope."""
    text, record = new_key((held,), now_s=NOW_S)
    presented = headers(X_API_Key=text)
    if held in {wanted, "admin"}:
        assert gate(record).admit(presented, wanted) == record.id
        return
    with pytest.raises(Forbidden, match=f"needs a key with the scope {wanted}; key {record.id} has {held}") as refused:
        gate(record).admit(presented, wanted)
    assert f'error="insufficient_scope", scope="{wanted}"' in str(refused.value.challenge)


def test_a_key_with_origins_is_limited_to_them() -> None:
    """A request without an origin comes from no browser and is admitted."""
    text, record = new_key(("recommend",), now_s=NOW_S, origins=("https://shop.example", "https://m.shop.example"))
    asked = gate(record)
    assert asked.admit(headers(X_API_Key=text), "recommend") == record.id
    for origin in record.origins:
        assert asked.admit(headers(X_API_Key=text, Origin=origin), "recommend") == record.id
    for origin in ("https://evil.example", "null", "http://shop.example", "https://shop.example.evil", ""):
        with pytest.raises(Forbidden, match="not valid for pages of this origin"):
            asked.admit(headers(X_API_Key=text, Origin=origin), "recommend")


def test_only_health_and_documents_are_open() -> None:
    """Every other route has the scope of its effect."""
    assert {route.path for route in ROUTES if route.scope is None} == {"/healthz", "/readyz", "/openapi.json", "/docs"}
    scopes = {(route.method, route.path): route.scope for route in ROUTES}
    assert scopes["POST", "/v1/events"] == "events"
    assert scopes["DELETE", "/v1/users/{user_id}"] == "erase"
    assert {scope for (_, path), scope in scopes.items() if "recomm" in path or "popular" in path} == {"recommend"}


class WatchedGate:
    """A key file, a gate, and the calls of their watcher."""

    def __init__(self, directory: Path, gate: Gate | None = None) -> None:
        self.file = KeyFile(directory)
        self.gate = Gate() if gate is None else gate
        self.counts: list[int] = []
        self.problems: list[str] = []
        self.watcher = KeyWatcher(self.file, self.gate, self.counts.append, self.problems.append, interval_s=0.01)

    def add(self) -> str:
        with self.file.edit() as keys:
            text, record = new_key(("recommend",), now_s=NOW_S)
            keys.append(record)
        return text

    def accepts(self, text: str) -> bool:
        return self.gate.keyring is not None and self.gate.keyring.find(text) is not None


def test_a_change_is_in_force_after_one_check(tmp_path: Path) -> None:
    """The first key closes the gate; an unchanged file is not read."""
    watched = WatchedGate(tmp_path)
    watched.watcher.check()
    assert watched.gate.keyring is None
    first = watched.add()
    watched.watcher.check()
    second = watched.add()
    assert watched.accepts(first)
    assert not watched.accepts(second)
    for _ in range(3):
        watched.watcher.check()
    assert watched.accepts(second)
    assert (watched.counts, watched.problems) == ([1, 2], [])


def test_a_gate_with_keys_never_opens(tmp_path: Path) -> None:
    """If the file is damaged, unreadable or missing, the last good keys stay and each reason is reported once."""
    watched = WatchedGate(tmp_path)
    text = watched.add()
    watched.watcher.check()
    good = watched.file.path.read_bytes()
    for spoil in (lambda: watched.file.path.write_bytes(b"{"), lambda: watched.file.path.chmod(0o666)):
        spoil()
        for _ in range(2):
            watched.watcher.check()
        assert watched.accepts(text)
    watched.file.path.unlink()
    watched.watcher.check()
    (tmp_path / "keys.lock").unlink()
    for _ in range(2):
        watched.watcher.check()
    tmp_path.rename(tmp_path.with_name("elsewhere"))
    watched.watcher.check()
    assert watched.accepts(text)
    reported = " ".join(watched.problems)
    assert [reason in reported for reason in ("not JSON", "mode 0666", "is missing", "is gone")] == [True] * 4
    assert len(watched.problems) == 4
    assert all("The last good keys stay in force." in problem for problem in watched.problems)
    tmp_path.with_name("elsewhere").rename(tmp_path)
    watched.file.path.touch(0o600)
    watched.file.path.write_bytes(good)
    watched.watcher.check()
    assert watched.accepts(text)
    assert watched.watcher.age_s < 60


def test_a_hanging_check_delays_nothing(tmp_path: Path) -> None:
    """It runs in a daemon thread; the keys stay in force and their age grows."""
    watched = WatchedGate(tmp_path)
    text = watched.add()
    watched.watcher.check()
    reading, writing = os.pipe()

    def hang() -> None:
        os.read(reading, 1)

    watched.file.signature = hang  # type: ignore[method-assign]
    watched.watcher.start()
    assert watched.accepts(text)
    before_s = watched.watcher.age_s
    assert watched.watcher.age_s > before_s
    watched.watcher.stop()
    os.write(writing, b"x")
    os.close(writing)


@pytest.mark.parametrize(
    ("host", "only_here"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("*", False),
        ("10.0.0.1", False),
        ("127.0.0.1.evil.example", False),
        ("shop.example", False),
        ("", False),
    ],
)
def test_a_listener_beyond_loopback_needs_keys(tmp_path: Path, host: str, only_here: bool) -> None:
    """Or --insecure; keys count on every address once there are any."""
    config = Config(home=tmp_path)
    assert is_loopback(host) is only_here
    assert require_keys(config, host, 8080, insecure=True) is None
    if only_here:
        assert require_keys(config, host, 8080, insecure=False) is None
    else:
        with pytest.raises(
            UsageError, match=r"can be reached from other machines.*or start with --insecure, which lets"
        ) as refused:
            require_keys(config, host, 8080, insecure=False)
        shown = f"[{host}]:8080" if ":" in host else f"{host}:8080"
        assert str(refused.value).startswith(f"{shown} can be reached")
        assert f"Insecure: {shown} requires" in insecure_warning(host, 8080)
    with KeyFile(config.security_dir).edit() as keys:
        keys.append(new_key(("recommend",), now_s=NOW_S)[1])
    for insecure in (False, True):
        assert len(require_keys(config, host, 8080, insecure=insecure) or ()) == 1


def test_required_keys_must_exist(tmp_path: Path) -> None:
    """`up` requires them of its replicas, so that lost keys open nothing."""
    config = Config(home=tmp_path, keys_required=True)
    with pytest.raises(UsageError, match="RECOLLECT_KEYS_REQUIRED is set and there are no API keys"):
        require_keys(config, "127.0.0.1", 8080, insecure=False)
    config.security_dir.mkdir()
    (config.security_dir / "keys.lock").touch()
    with pytest.raises(KeysRefused, match="is missing, but keys were made here"):
        require_keys(config, "127.0.0.1", 8080, insecure=True)
