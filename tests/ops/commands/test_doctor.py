import asyncio
import dataclasses
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

from loadbalancer import roster
from ops import loadtest
from ops.commands import doctor as doctor_module
from ops.commands.doctor import CHECKS, Requirement, doctor, parse_requirement, satisfies
from service.config import Config
from service.security.api_key import new_key
from service.security.key_file import KeyFile
from telemetry.batch import Position
from telemetry.catalogue.archive_identity import identify
from telemetry.stream.redis_stream import RedisStream
from telemetry.stream.watermark_seal import Seal, load_or_create_key
from telemetry.wal.slot import IDENTITY, Identity, encode_identity
from tests.support.certificates import make_certificate


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_port: Any) -> Config:
    """A sound installation that has not been started yet, on a port of its own."""
    for name in [name for name in os.environ if name.startswith("RECOLLECT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RECOLLECT_PORT", str(free_port()))
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    return Config(home=home, logs=tmp_path / "logs")


def _finding(config: Config, name: str) -> tuple[str, str]:
    return doctor_module._judged(CHECKS[name], config)


def test_a_fresh_installation_is_sound(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """One line per check, no failure, exit 0; the lacking model is a warning."""
    assert doctor(config, as_json=False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(CHECKS)
    assert [line for line in lines if line.startswith("fail")] == []
    assert any(line.startswith("warn  model") for line in lines)


def test_json_says_the_same(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """The object has a verdict and one finding per check."""
    assert doctor(config, as_json=True) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["sound"] is True
    assert [finding["name"] for finding in report["findings"]] == list(CHECKS)
    assert {finding["status"] for finding in report["findings"]} <= {"ok", "warn"}


def test_a_fault_ends_in_1(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """One failed check is enough."""
    shutil.rmtree(config.home)
    config.home.write_text("not a directory")
    assert doctor(config, as_json=True) == 1
    assert json.loads(capsys.readouterr().out)["sound"] is False


def test_listening_beyond_this_machine_without_keys_is_warned_of(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And so are keys of which none is valid, or a key file that cannot be used."""
    assert _finding(config, "keys")[0] == "ok"
    monkeypatch.setenv("RECOLLECT_BALANCER_HOST", "0.0.0.0")
    status, sentence = _finding(config, "keys")
    assert (status, "RECOLLECT_BALANCER_HOST (0.0.0.0)" in sentence) == ("warn", True)
    file = KeyFile(config.security_dir)
    with file.changing() as keys:
        keys.append(new_key(("recommend",), now_s=0, expires_in_s=1)[1])
    assert _finding(config, "keys") == (
        "warn",
        "None of 1 API keys is valid, so every request is refused: recollect keys create.",
    )
    with file.changing() as keys:
        keys.append(new_key(("recommend",), now_s=0)[1])
    assert _finding(config, "keys") == ("ok", "1 of 2 API keys are valid.")
    file.path.chmod(0o666)
    assert _finding(config, "keys")[0] == "fail"


def test_a_port_is_free_or_ours_or_taken(config: Config) -> None:
    """What nginx of this installation listens on is in order; what anybody else listens on is not."""
    port = int(os.environ["RECOLLECT_PORT"])
    assert _finding(config, "port")[0] == "ok"
    with socket.create_server(("127.0.0.1", port)):
        status, sentence = _finding(config, "port")
        assert (status, str(port) in sentence) == ("fail", True)
        (config.home / "run").mkdir()
        row = roster.Row("nginx-0", os.getpid(), "127.0.0.1", port, None, "ready", 0, "")
        roster.write(config.home, [row])
        status, sentence = _finding(config, "port")
        assert (status, "nginx-0" in sentence) == ("ok", True)
        roster.write(config.home, [dataclasses.replace(row, pid=2**22 + 1)])
        assert _finding(config, "port")[0] == "fail"


def test_who_shares_our_port_is_a_fault(config: Config) -> None:
    """The kernel lets a process of our own user do it, and gives it a part of the clients."""
    port = int(os.environ["RECOLLECT_PORT"])
    program = (
        f"import socket; server = socket.create_server(('127.0.0.1', {port}), reuse_port=True)\n"
        "print(flush=True); input()"
    )
    (config.home / "run").mkdir()
    roster.write(config.home, [roster.Row("nginx-0", os.getpid(), "127.0.0.1", port, None, "ready", 0, "")])
    with socket.create_server(("127.0.0.1", port), reuse_port=True):
        assert _finding(config, "port")[0] == "ok"
        with subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as stranger:
            assert stranger.stdin is not None
            assert stranger.stdout is not None
            stranger.stdout.readline()
            status, sentence = _finding(config, "port")
            stranger.stdin.close()
        assert (status, f"process {stranger.pid} (" in sentence) == ("fail", True)


def test_the_state_directory_is_private_and_writable(config: Config, tmp_path: Path) -> None:
    """Missing is fine if it can be made; open to others is a warning; a file in its place is a fault."""
    assert _finding(config, "state")[0] == "ok"
    config.home.chmod(0o755)
    status, sentence = _finding(config, "state")
    assert (status, "0755" in sentence) == ("warn", True)
    assert _finding(dataclasses.replace(config, home=tmp_path / "a" / "b"), "state")[0] == "ok"
    (tmp_path / "file").touch()
    assert _finding(dataclasses.replace(config, home=tmp_path / "file"), "state")[0] == "fail"
    assert _finding(dataclasses.replace(config, home=tmp_path / "file" / "home"), "state")[0] == "fail"
    status, sentence = _finding(dataclasses.replace(config, logs=tmp_path / "file"), "state")
    assert (status, "RECOLLECT_LOGS" in sentence) == ("fail", True)


def test_keys_of_telemetry_that_up_would_refuse_are_a_fault(config: Config, tmp_path: Path) -> None:
    """Both files that a setting names are read, as a start reads them."""
    assert _finding(config, "key files")[0] == "ok"
    key = tmp_path / "key"
    key.write_bytes(bytes(32))
    key.chmod(0o600)
    sound = dataclasses.replace(config, pseudonym_key_file=key, watermark_key_file=key)
    status, sentence = _finding(sound, "key files")
    assert (status, str(key) in sentence) == ("ok", True)
    key.chmod(0o644)
    for name in ("pseudonym_key_file", "watermark_key_file"):
        for wrong in (key, tmp_path / "absent"):
            broken: Any = {name: wrong}
            status, sentence = _finding(dataclasses.replace(config, **broken), "key files")
            assert (status, f"RECOLLECT_{name.upper()}: " in sentence, str(wrong) in sentence) == ("fail", True, True)


def test_a_certificate_that_nginx_would_refuse_is_a_fault(
    config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Absent, not PEM, a pipe, another's key: each is told, and nothing waits."""
    assert _finding(config, "tls")[0] == "ok"
    cert, key = make_certificate(tmp_path)
    (tmp_path / "other").mkdir()
    _, foreign = make_certificate(tmp_path / "other")
    junk, pipe = tmp_path / "junk", tmp_path / "pipe"
    junk.write_text("junk")
    os.mkfifo(pipe)
    for pair, wanted, said in (
        ((cert, key), "ok", str(cert)),
        ((cert, foreign), "fail", "key values mismatch"),
        ((junk, key), "fail", "not such a PEM file"),
        ((cert, pipe), "fail", f"{pipe} is not a regular file"),
        ((tmp_path / "absent", key), "fail", "No such file"),
    ):
        for name, path in zip(("CERT", "KEY"), pair, strict=True):
            monkeypatch.setenv(f"RECOLLECT_TLS_{name}", str(path))
        status, sentence = _finding(config, "tls")
        assert (status, said in sentence) == (wanted, True), sentence


def test_a_configured_redis_must_answer(config: Config, redis_server: Any) -> None:
    """A real server tells its version; a password is asked for and never repeated; a dead one is a fault."""
    configured = dataclasses.replace(config, redis_url=redis_server.url)
    status, sentence = _finding(configured, "redis")
    assert status == "ok"
    assert f"127.0.0.1:{redis_server.port}/0, redis " in sentence
    assert "takes every command that is needed in the namespace recollect" in sentence
    with redis_server.client() as client:
        client.config_set("requirepass", "open:sesame")
    assert _finding(configured, "redis")[0] == "fail"
    secret = dataclasses.replace(config, redis_url=f"redis://:open%3Asesame@127.0.0.1:{redis_server.port}/0")
    assert _finding(secret, "redis")[0] == "ok"
    wrong = dataclasses.replace(config, redis_url=f"redis://:guess@127.0.0.1:{redis_server.port}/0")
    status, sentence = _finding(wrong, "redis")
    assert (status, "guess" in sentence) == ("fail", False)
    redis_server.kill()
    status, sentence = _finding(secret, "redis")
    assert (status, "sesame" in sentence) == ("fail", False)


def test_a_redis_that_would_lose_events_or_is_another_archives_is_a_fault(config: Config, redis_server: Any) -> None:
    """What only costs time is a warning."""
    configured = dataclasses.replace(config, redis_url=redis_server.url)
    with redis_server.client() as client:
        for setting, value, before, status, words in (
            ("maxmemory-policy", "allkeys-lru", "noeviction", "fail", "evicts events that are not archived"),
            ("maxmemory-policy", "volatile-ttl", "noeviction", "warn", "evicts none of our keys"),
            ("appendonly", "no", "yes", "warn", "appendonly is off"),
            ("maxmemory", "1", "0", "fail", "it is full"),
        ):
            client.config_set(setting, value)
            found = _finding(configured, "redis")
            assert (found[0], words in found[1]) == (status, True), found
            client.config_set(setting, before)
        ours = identify(config.archive_dir)
        client.set("recollect:owner", ours.archive)
        assert _finding(configured, "redis")[0] == "ok"
        client.set("recollect:owner", "another-archive")
        status, sentence = _finding(configured, "redis")
        assert (status, "belongs to the archive another-archive" in sentence) == ("fail", True)


async def _publish(url: str, seal: Seal) -> None:
    stream = RedisStream(url, seal=seal)
    await stream.connect()
    await stream.publish_watermarks({"01a1": Position(1, 9)})
    await stream.close()


def test_a_watermark_that_our_replicas_would_not_believe_is_a_fault(config: Config, redis_server: Any) -> None:
    """A machine without the consumer's key never lets go of what is archived; the sentence says what to copy."""
    config = dataclasses.replace(config, redis_url=redis_server.url)
    slot = config.spool_dir / "0"
    slot.mkdir(parents=True)
    (slot / IDENTITY).write_bytes(encode_identity(Identity("01a1", 1)))
    asyncio.run(_publish(redis_server.url, Seal(load_or_create_key(config.archive_dir))))
    status, sentence = _finding(config, "redis")
    assert status != "fail", sentence
    asyncio.run(_publish(redis_server.url, Seal(b"another" * 5)))
    status, sentence = _finding(config, "redis")
    assert status == "fail"
    assert "copy the consumer's key file here" in sentence


def test_the_redis_that_up_started_is_looked_at_on_its_socket(config: Config, redis_server: Any) -> None:
    """Beside the program; there is no address in the settings."""
    (config.home / "run").mkdir()
    roster.write(config.home, [roster.Row("redis", 1, str(redis_server.socket), None, None, "ready", 0, "")])
    status, sentence = _finding(config, "redis")
    assert (status, f"The Redis at {redis_server.socket}" in sentence) == ("ok", True)


@pytest.mark.parametrize("url", ["http://127.0.0.1", "redis://127.0.0.1:many", "unix:///nonexistent.sock", "nonsense"])
def test_a_redis_url_that_cannot_work_is_a_fault(config: Config, url: str) -> None:
    """A wrong address is told in a sentence, not in a traceback."""
    assert _finding(dataclasses.replace(config, redis_url=url), "redis")[0] == "fail"


@pytest.mark.parametrize(("check", "variable"), [("redis", "RECOLLECT_REDIS_SERVER"), ("nginx", "RECOLLECT_NGINX")])
def test_a_configured_program_must_run(
    config: Config, monkeypatch: pytest.MonkeyPatch, check: str, variable: str
) -> None:
    """Without a setting one is found; a setting that names something else is a fault."""
    assert _finding(config, check)[0] == "ok"
    monkeypatch.setenv(variable, "/bin/true")
    status, sentence = _finding(config, check)
    assert (status, variable in sentence) == ("fail", True)


def test_a_broken_active_model_is_a_fault(config: Config) -> None:
    """ACTIVE must name a sound version."""
    config.models_dir.mkdir()
    (config.models_dir / "ACTIVE").write_text("svd-20260101T000000-abcd\n")
    status, sentence = _finding(config, "model")
    assert (status, "svd-20260101T000000-abcd" in sentence) == ("fail", True)
    (config.models_dir / "ACTIVE").write_text("../etc\n")
    assert _finding(config, "model")[0] == "fail"


def test_a_foreign_package_under_our_name_is_a_fault(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another distribution that ships a module called `ops` is found, though ours is the one imported here."""
    site = tmp_path / "site"
    metadata = site / "foreign_ops-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign-ops\nVersion: 1.0\n")
    (metadata / "top_level.txt").write_text("ops\n")
    assert _finding(config, "names")[0] == "ok"
    monkeypatch.setattr(sys, "path", [*sys.path, str(site)])
    assert "foreign-ops" in packages_distributions()["ops"]
    status, sentence = _finding(config, "names")
    assert (status, "foreign-ops" in sentence) == ("fail", True)


@pytest.mark.parametrize(
    ("limits", "status"),
    [((4096, 4096), "ok"), ((1024, 1 << 20), "ok"), ((1024, 2048), "fail"), ((resource.RLIM_INFINITY,) * 2, "ok")],
)
def test_open_files_are_enough_or_can_be_raised(
    config: Config, monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], status: str
) -> None:
    """A soft limit is raised by `up`, a hard one cannot be."""
    # The limits of the test process itself cannot be raised again once they were lowered.
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    assert _finding(config, "open files")[0] == status


def test_little_disk_space_is_told(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bounds are compared with what is free where state and logs go."""
    monkeypatch.setattr(doctor_module, "_DISK_WARN_BYTES", 1 << 62)
    assert _finding(config, "disk")[0] == "warn"
    monkeypatch.setattr(doctor_module, "_DISK_FAIL_BYTES", 1 << 61)
    assert _finding(config, "disk")[0] == "fail"


@pytest.mark.parametrize(
    ("requirement", "installed", "status"),
    [
        ("aiohttp>=99", "", "fail"),
        ("no-such-distribution>=1", "", "fail"),
        ("no-such-distribution>=1; extra == 'deep'", "", "ok"),
        ("pytest>=99; extra == 'dev'", "", "warn"),
        ("aiohttp<99,>=3", "", "ok"),
    ],
)
def test_installed_versions_are_held_to_the_requirements(
    config: Config, monkeypatch: pytest.MonkeyPatch, requirement: str, installed: str, status: str
) -> None:
    """What the service needs must be there; what an extra brings is only looked at if it is there."""
    monkeypatch.setattr("importlib.metadata.requires", lambda _: [requirement])
    assert _finding(config, "packages")[0] == status


@pytest.mark.parametrize(
    ("text", "requirement"),
    [
        ("aiohttp<4,>=3.14.5", Requirement("aiohttp", "<4,>=3.14.5", optional=False)),
        ("redis[hiredis]<9,>=8.1", Requirement("redis", "<9,>=8.1", optional=False)),
        ("uvloop<0.24,>=0.22; sys_platform != 'win32'", Requirement("uvloop", "<0.24,>=0.22", optional=False)),
        ("types-aiofiles; extra == 'dev'", Requirement("types-aiofiles", "", optional=True)),
        ("a.b_c (>=1) ; extra == 'x'", Requirement("a.b_c", ">=1", optional=True)),
    ],
)
def test_requirements_are_read_as_we_write_them(text: str, requirement: Requirement) -> None:
    """Name, bounds, and whether an extra brings it."""
    assert parse_requirement(text) == requirement


@pytest.mark.parametrize(
    ("version", "specifiers", "holds"),
    [
        ("3.14.5", ">=3.14.5,<4", True),
        ("3.14.4", ">=3.14.5,<4", False),
        ("4.0", ">=3.14.5,<4", False),
        ("3.14.10", ">=3.14.5", True),
        ("2.1", ">=2.1.0", True),
        ("1.4.1", "==1.4.1", True),
        ("1.4.2", "==1.4.1", False),
        ("1.4.2", "!=1.4.1,>1.4.1,<=1.4.2", True),
        ("20.1rc1", ">=20", True),
        ("anything", "", True),
    ],
)
def test_versions_compare_by_their_numbers(version: str, specifiers: str, holds: bool) -> None:
    """Ten is more than five, and 2.1 is 2.1.0."""
    assert satisfies(version, specifiers) is holds


def test_a_tls_handshake_that_fails_is_a_fault_and_leaves_no_socket(config: Config, redis_server: Any) -> None:
    """rediss:// at a server that speaks plainly is told, not raised."""
    url = f"rediss://127.0.0.1:{redis_server.port}/0"
    status, sentence = _finding(dataclasses.replace(config, redis_url=url), "redis")
    assert (status, "does not answer" in sentence) == ("fail", True)


def test_a_running_installation_is_found_on_whatever_port_it_was_started(
    config: Config, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its rows and not by the settings; the load test asks there too, and else where the settings say."""
    port = free_port()
    roster.path_in(config.home).parent.mkdir(parents=True)
    roster.write(config.home, [roster.Row("nginx-0", os.getpid(), "127.0.0.1", port, None, "ready", 0, "")])
    assert f"127.0.0.1:{port} is served by this installation's nginx-0" in _finding(config, "port")[1]
    monkeypatch.setenv("RECOLLECT_HOME", str(config.home))
    assert loadtest.running() == f"http://127.0.0.1:{port}"
    roster.remove(config.home)
    assert loadtest.running() == f"http://127.0.0.1:{os.environ['RECOLLECT_PORT']}"


def test_the_file_of_settings_that_counts_is_told(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a command in the wrong folder is found out."""
    (tmp_path / "recollect.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    assert f"from {tmp_path}/recollect.toml and the environment" in _finding(config, "settings")[1]
