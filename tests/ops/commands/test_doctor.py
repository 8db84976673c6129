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
from ops.checks import access, software, state
from ops.commands.doctor import CHECKS, doctor, run_check
from service.config import Config
from service.models.publication import publication
from service.models.snapshot import ModelSnapshot
from service.security.api_key import new_key
from service.security.key_file import KeyFile
from telemetry.batch import Position
from telemetry.events import Record
from telemetry.live.layer_merge import KeepRules
from telemetry.live.live_event import live_event
from telemetry.live.state_manifest import StateManifest
from telemetry.live.state_store import StateStore
from tests.support.machines.certificates import make_certificate
from tests.support.sample_events import feedback


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
    return run_check(CHECKS[name], config)


def test_a_fresh_installation_is_sound(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """One line per check, no failure, exit 0; the lacking model is a warning."""
    assert doctor(config, as_json=False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(CHECKS)
    assert [line for line in lines if line.startswith("fail")] == []
    assert any(line.startswith("warn  model") for line in lines)


def test_json_has_the_same_findings(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
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
    with monkeypatch.context() as edge:
        edge.setenv("RECOLLECT_REPLICAS", "0")
        edge.setenv("RECOLLECT_REMOTE_REPLICAS", "10.0.0.5:8081")
        assert _finding(config, "keys")[0] == "ok"
        # A replica on loopback asks for no keys, so `balance` refuses this as well.
        edge.setenv("RECOLLECT_REMOTE_REPLICAS", "10.0.0.5:8081,127.0.0.1:8081")
        assert _finding(config, "keys")[0] == "warn"
    with monkeypatch.context() as behind:
        behind.setenv("RECOLLECT_BALANCER_HOST", "127.0.0.1")
        behind.setenv("RECOLLECT_REPLICAS_HOST", "10.0.0.11")
        behind.setenv("RECOLLECT_REPLICAS_PORT", "8101")
        status, sentence = _finding(config, "keys")
        assert (status, "RECOLLECT_REPLICAS_HOST (10.0.0.11)" in sentence) == ("warn", True)
    file = KeyFile(config.security_dir)
    with file.edit() as keys:
        keys.append(new_key(("recommend",), now_s=0, expires_in_s=1)[1])
    assert _finding(config, "keys") == (
        "warn",
        "None of 1 API keys is valid, so every request is refused: recollect keys create.",
    )
    with file.edit() as keys:
        keys.append(new_key(("recommend",), now_s=0)[1])
    assert _finding(config, "keys") == ("ok", "1 of 2 API keys are valid.")
    file.path.chmod(0o666)
    assert _finding(config, "keys")[0] == "fail"


def test_a_port_is_free_or_ours_or_taken(config: Config) -> None:
    """Only an nginx of this installation may listen on it."""
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


def test_another_listener_on_our_port_is_a_fault(config: Config) -> None:
    """The kernel lets another process of the same user share the port, and gives it a part of the clients."""
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


def test_telemetry_keys_that_up_refuses_are_a_fault(config: Config, tmp_path: Path) -> None:
    """Both files that settings name are read, as at a start."""
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


def test_a_certificate_that_nginx_refuses_is_a_fault(
    config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Absent, not PEM, a pipe, another certificate's key: each is reported, and nothing blocks."""
    assert _finding(config, "tls")[0] == "ok"
    cert, key = make_certificate(tmp_path)
    (tmp_path / "other").mkdir()
    _, foreign = make_certificate(tmp_path / "other")
    junk, pipe = tmp_path / "junk", tmp_path / "pipe"
    junk.write_text("junk")
    os.mkfifo(pipe)
    for pair, wanted, reason in (
        ((cert, key), "ok", str(cert)),
        ((cert, foreign), "fail", "key values mismatch"),
        ((junk, key), "fail", "not a PEM file of its kind"),
        ((cert, pipe), "fail", f"{pipe} is not a regular file"),
        ((tmp_path / "absent", key), "fail", "No such file"),
    ):
        for name, path in zip(("CERT", "KEY"), pair, strict=True):
            monkeypatch.setenv(f"RECOLLECT_TLS_{name}", str(path))
        status, sentence = _finding(config, "tls")
        assert (status, reason in sentence) == (wanted, True), sentence


@pytest.mark.parametrize(("check", "variable"), [("redis", "RECOLLECT_REDIS_SERVER"), ("nginx", "RECOLLECT_NGINX")])
def test_a_configured_program_must_run(
    config: Config, monkeypatch: pytest.MonkeyPatch, check: str, variable: str
) -> None:
    """Without a setting one is found; a setting that names another program is a fault."""
    assert _finding(config, check)[0] == "ok"
    monkeypatch.setenv(variable, "/bin/true")
    status, sentence = _finding(config, check)
    assert (status, variable in sentence) == ("fail", True)


def test_versions_of_two_embedding_spaces_are_a_warning(
    config: Config, make_snapshot: Callable[..., ModelSnapshot]
) -> None:
    """The sentence names the versions of both roles."""
    models_dir = config.models_dir
    first, same, other = (
        publication.publish(models_dir, make_snapshot(seed=seed), data={}, measures={}) for seed in (0, 0, 1)
    )
    publication.activate(models_dir, first)
    publication.activate(models_dir, same, "ranking")
    expected = f"Each role has its version: candidates {first}, ranking {same}."
    assert _finding(config, "model") == ("ok", expected)
    publication.activate(models_dir, other, "ranking")
    status, sentence = _finding(config, "model")
    assert (status, f"candidates {first}, ranking {other}." in sentence) == ("warn", True)


def test_a_broken_active_model_is_a_fault(config: Config) -> None:
    """ACTIVE must name a sound version."""
    config.models_dir.mkdir()
    (config.models_dir / "ACTIVE").write_text("svd-20260101T000000-abcd\n")
    status, sentence = _finding(config, "model")
    assert (status, "svd-20260101T000000-abcd" in sentence) == ("fail", True)
    (config.models_dir / "ACTIVE").write_text("../etc\n")
    assert _finding(config, "model")[0] == "fail"


def test_a_damaged_live_state_is_warned_of(config: Config) -> None:
    """The consumer makes it anew; until it has one there is nothing to check."""
    assert _finding(config, "live state") == ("ok", "There is no state snapshot yet; the consumer makes it.")
    store = StateStore(config.state_dir)
    event = live_event(Record(feedback(), "p", 1, 1))
    assert event is not None
    store.add([event], KeepRules(100, 0))
    store.save(StateManifest("a", Position(1, 0), {}, 0, 365, 100, ()))
    status, sentence = _finding(config, "live state")
    assert (status, sentence.partition(",")[0]) == ("ok", "1 live events since 1970-01-01")
    (path,) = config.state_dir.glob("*.events")
    content = path.read_bytes()
    path.write_bytes(content[:8] + bytes([content[8] ^ 1]) + content[9:])
    status, sentence = _finding(config, "live state")
    assert (status, "its column high does not have its checksum" in sentence) == ("warn", True)


def test_a_foreign_package_under_our_name_is_a_fault(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another distribution with a module called `ops` is found, though ours is the one imported here."""
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
def test_open_files_are_enough_or_can_be_raised(config: Config, limits: tuple[int, int], status: str) -> None:
    """A soft limit is raised by `up`, a hard one cannot be."""
    assert access.file_limit(config, limits)[0] == status


def test_little_disk_space_is_reported(config: Config) -> None:
    """The bounds are compared with the free space under state and logs."""
    assert state.disk(config, warn_below_bytes=1 << 62)[0] == "warn"
    assert state.disk(config, fail_below_bytes=1 << 61)[0] == "fail"


@pytest.mark.parametrize(
    ("requirement", "status"),
    [
        ("aiohttp>=99", "fail"),
        ("no-such-distribution>=1", "fail"),
        ("no-such-distribution>=1; extra == 'deep'", "ok"),
        ("no-such-distribution>=1; sys_platform == 'win32'", "ok"),
        ("pytest>=99; extra == 'dev'", "warn"),
        ("aiohttp<99,>=3", "ok"),
    ],
)
def test_installed_versions_are_compared_with_the_requirements(config: Config, requirement: str, status: str) -> None:
    """A distribution of an extra is compared only where it is installed."""
    assert software.packages(config, [requirement])[0] == status


def test_a_running_installation_is_found_on_whatever_port_it_was_started(
    config: Config, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The roster wins over the settings; the load test uses the same address."""
    port = free_port()
    roster.path_in(config.home).parent.mkdir(parents=True)
    roster.write(config.home, [roster.Row("nginx-0", os.getpid(), "127.0.0.1", port, None, "ready", 0, "")])
    assert f"127.0.0.1:{port} is served by this installation's nginx-0" in _finding(config, "port")[1]
    monkeypatch.setenv("RECOLLECT_HOME", str(config.home))
    assert loadtest.running_url() == f"http://127.0.0.1:{port}"
    roster.remove(config.home)
    assert loadtest.running_url() == f"http://127.0.0.1:{os.environ['RECOLLECT_PORT']}"


def test_the_file_of_settings_in_force_is_named(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a command in the wrong folder is noticed."""
    (tmp_path / "recollect.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    assert f"from {tmp_path}/recollect.toml and the environment" in _finding(config, "settings")[1]
