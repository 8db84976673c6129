"""Where settings and state come from, and what is refused of them before any command does its work."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ops.commands import train
from ops.options import environment
from ops.options.environment import adopt, find, paths_by_name, settings_of
from service.errors import UsageError
from service.training.algorithms import registry

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As from a wheel: there is no file beside the code."""
    monkeypatch.setattr(environment, "_BESIDE_THE_CODE", Path("/nowhere/recollect.toml"))


@pytest.mark.parametrize(
    ("name", "meant"),
    [("RECOLLECT_REPLICSA", "RECOLLECT_REPLICAS"), ("RECOLLECT_REDIS", "RECOLLECT_REDIS_URL"), ("RECOLLECT_XYZZY", "")],
)
def test_an_unknown_variable_is_refused_with_the_one_that_may_be_meant(name: str, meant: str, tmp_path: Path) -> None:
    """Even an empty one: its writer means something by it."""
    with pytest.raises(UsageError, match=f"There is no setting {name}") as refused:
        adopt({"HOME": "/home/ann", name: ""}, tmp_path)
    assert (f"(did you mean {meant}?)" in str(refused.value)) == bool(meant)


def test_variables_of_tests_and_drills_are_no_settings(tmp_path: Path) -> None:
    """They are no mistakes, and commands that are started inherit them as they are."""
    given = {"HOME": "/h", "RECOLLECT_TEST_DATA": "x", "RECOLLECT_DRILL_CLOCKS": "x", "RECOLLECTION": "x"}
    environ = dict(given)
    adopt(environ, tmp_path)
    assert given.items() <= environ.items()


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("RECOLLECT_SPOOL_BYTES", "10", "must be at least 1048576"),
        ("RECOLLECT_SPOOL_RING_BYTES", "0", "must be at least 65536"),
        ("RECOLLECT_BODY_LIMIT_BYTES", "70000", "must be from 1024 to 65536"),
        ("RECOLLECT_CONSUMER_BLOCK_MS", "2000", "must be above 0 and at most 1999"),
        ("RECOLLECT_LOG_LEVEL", "loud", "must be debug, info, warning or error, not 'loud'"),
        ("RECOLLECT_KEEPALIVE_TIMEOUT_S", "5", "must be above RECOLLECT_UPSTREAM_KEEPALIVE_S"),
        ("RECOLLECT_UPSTREAM_KEEPALIVE_S", "15", "must be above RECOLLECT_UPSTREAM_KEEPALIVE_S"),
        ("RECOLLECT_SPOOL_ACCEPT_TIMEOUT_S", "0.5", "must be below RECOLLECT_EVENTS_TIMEOUT_MS"),
        ("RECOLLECT_EVENTS_TIMEOUT_MS", "400", "must be below RECOLLECT_EVENTS_TIMEOUT_MS"),
        ("RECOLLECT_CONSUMER_TAKEOVER_S", "1.5", "must be at least twice RECOLLECT_CONSUMER_HEARTBEAT_S"),
    ],
)
def test_every_bound_that_the_page_of_settings_states_holds(name: str, value: str, says: str, tmp_path: Path) -> None:
    """Alone or against another setting, in whichever of the two the fault is."""
    with pytest.raises(UsageError, match=says):
        adopt({"HOME": "/home/ann", name: value}, tmp_path)


@pytest.mark.usefixtures("installed")
def test_without_a_word_state_lives_in_one_place_of_the_user(tmp_path: Path) -> None:
    """XDG_STATE_HOME, else ~/.local/state; the logs in it."""
    for given, home in (
        ({"HOME": "/home/ann"}, "/home/ann/.local/state/recollect"),
        ({"HOME": "/home/ann", "XDG_STATE_HOME": "/s"}, "/s/recollect"),
        ({"HOME": "/home/ann", "XDG_STATE_HOME": "relative"}, "/home/ann/.local/state/recollect"),
        ({"HOME": "/home/ann", "RECOLLECT_HOME": "/srv/r"}, "/srv/r"),
    ):
        environ = dict(given)
        adopt(environ, tmp_path)
        assert (environ["RECOLLECT_HOME"], environ["RECOLLECT_LOGS"]) == (home, f"{home}/logs")


@pytest.mark.usefixtures("installed")
def test_a_user_without_a_home_is_asked_to_name_a_place(tmp_path: Path) -> None:
    """As in a container; one sentence."""
    with pytest.raises(UsageError, match="name one in RECOLLECT_HOME"):
        adopt({}, tmp_path)


def test_a_file_is_found_above_and_its_paths_are_relative_to_it(tmp_path: Path) -> None:
    """In any folder below, the same place; the environment wins, and takes the logs along."""
    (tmp_path / "recollect.toml").write_text('home = "state"\nlogs = "/var/log/r"\nreplicas = 5\nnginx = "bin/nginx"\n')
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    for folder in (tmp_path, below):
        environ = {"RECOLLECT_PORT": "9000", "RECOLLECT_NGINX": ""}
        adopt(environ, folder)
        assert environ == {
            "RECOLLECT_HOME": str(tmp_path / "state"),
            "RECOLLECT_LOGS": "/var/log/r",
            "RECOLLECT_REPLICAS": "5",
            "RECOLLECT_NGINX": str(tmp_path / "bin" / "nginx"),
            "RECOLLECT_PORT": "9000",
            "RECOLLECT_FILE": f"read:{tmp_path}/recollect.toml",
        }
    environ = {"RECOLLECT_HOME": "/elsewhere", "RECOLLECT_REPLICAS": "2"}
    adopt(environ, below)
    assert (environ["RECOLLECT_LOGS"], environ["RECOLLECT_REPLICAS"]) == ("/elsewhere/logs", "2")


def test_a_part_that_is_started_without_a_setting_does_not_find_it_again(tmp_path: Path) -> None:
    """A drill starts a system of its own without the operator's Redis, and must not meet it in the operator's file."""
    (tmp_path / "recollect.toml").write_text('home = "state"\nredis_url = "redis://production:6379/0"\n')
    environ = {"HOME": "/home/ann"}
    adopt(environ, tmp_path)
    assert environ["RECOLLECT_REDIS_URL"] == "redis://production:6379/0"
    del environ["RECOLLECT_REDIS_URL"]
    adopt(environ, tmp_path)
    assert "RECOLLECT_REDIS_URL" not in environ
    assert environment.file_of(environ, Path("/")) == tmp_path / "recollect.toml"


def test_a_file_may_be_named_or_forbidden(tmp_path: Path) -> None:
    """Whatever lies in the folder."""
    (tmp_path / "recollect.toml").write_text("replicas = 5\n")
    other = tmp_path / "other.toml"
    other.write_text("replicas = 7\n")
    for named, replicas in ((str(other), "7"), ("none", None), ("", "5")):
        environ = {"HOME": "/home/ann", "RECOLLECT_FILE": named}
        adopt(environ, tmp_path)
        assert environ.get("RECOLLECT_REPLICAS") == replicas
    with pytest.raises(UsageError, match=r"absent\.toml cannot be read"):
        adopt({"HOME": "/home/ann", "RECOLLECT_FILE": "/absent.toml"}, tmp_path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('file = "x"', "no setting 'file'; docs"),
        ("replicsa = 5", r"no setting 'replicsa' \(did you mean replicas\?\)"),
        ("RECOLLECT_REPLICAS = 5", r"no setting 'RECOLLECT_REPLICAS' \(did you mean replicas\?\)"),
        ("Replicas = 5", r"no setting 'Replicas' \(did you mean replicas\?\)"),
        ("replicas = [5]", "replicas must be a text, a number, true or false"),
        ("[replicas]\nn = 5", "replicas must be a text, a number, true or false"),
        ("replicas = ", "cannot be read"),
        ("replicas = 0", r"RECOLLECT_REPLICAS is 0, so that nginx needs .* \(replicas in .*recollect\.toml\)"),
        ("replicas = 257", r"RECOLLECT_REPLICAS must be from 0 to 256, not 257 \(replicas in .*recollect\.toml\)"),
        ('hosts = "a/b"', r"RECOLLECT_HOSTS: 'a/b' is not a host name.* \(hosts in .*recollect\.toml\)"),
        (
            "spool_accept_timeout_s = 5\nspool_bytes = 9999999",
            r"nginx would give up first \(spool_accept_timeout_s in .*recollect\.toml\)",
        ),
    ],
)
def test_a_file_is_held_to_the_same_rules(text: str, says: str, tmp_path: Path) -> None:
    """The sentence names the file, or the variable."""
    (tmp_path / "recollect.toml").write_text(text)
    with pytest.raises(Exception, match=says) as refused:
        adopt({"HOME": "/home/ann"}, tmp_path)
    assert getattr(refused.value, "exit_code", None) == 2


def test_a_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It could name any program as nginx; in a folder that everyone may write, anyone can leave one."""
    file = tmp_path / "recollect.toml"
    file.write_text("")
    assert find(tmp_path) == file
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert find(tmp_path) == file  # the owner of the code, or root
    if os.getuid() == 0:
        os.chown(file, 4711, 4711)
        with pytest.raises(UsageError, match="belongs to another user"):
            find(tmp_path)


def test_the_checkout_keeps_its_state_beside_it() -> None:
    """As README says, and from any folder; every setting's kind is known."""
    assert find(Path("/")) == ROOT / "recollect.toml"
    assert settings_of(ROOT / "recollect.toml") == {
        "RECOLLECT_HOME": str(ROOT / "var"),
        "RECOLLECT_LOGS": str(ROOT / "logs"),
    }
    kinds = paths_by_name()
    assert {name for name in kinds if name.endswith(("_KEY_FILE", "_HOME", "_LOGS"))} <= {n for n in kinds if kinds[n]}


def test_every_verb_refuses_and_help_does_not() -> None:
    """Through the console script, in one sentence and with exit status 2."""
    environ = {**os.environ, "RECOLLECT_REPLICSA": "5"}
    for arguments, code in (
        (["models", "list"], 2),
        (["audit"], 2),
        (["up"], 2),
        (["up", "--help"], 0),
        ([], 0),
    ):
        argv = [sys.executable, "-m", "ops", *arguments]
        done = subprocess.run(argv, env=environ, capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == code, (arguments, done.stderr)
        if code:
            assert done.stderr.startswith("recollect: There is no setting RECOLLECT_REPLICSA (did you mean")
            assert done.stderr.count("\n") == 1
        else:
            assert done.stdout.startswith("Usage: ")
            assert max(map(len, done.stdout.splitlines())) <= 80
            assert not re.search(r"[a-z]\.\.\.$", done.stdout, re.MULTILINE)


def test_version_is_printed() -> None:
    """One line."""
    argv = [sys.executable, "-m", "ops", "--version"]
    assert subprocess.run(argv, capture_output=True, text=True, cwd=ROOT).stdout.startswith("recollect 0.")


def test_help_lists_every_algorithm() -> None:
    """From a list that costs no import, held to the registry here."""
    known = [*registry.names(), *registry.PRESETS]
    assert train.ALGORITHMS.replace("or a preset: ", "").split(", ") == known
    argv = [sys.executable, "-X", "importtime", "-m", "ops", "train", "--help"]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "COLUMNS": "80"})
    assert set(known) <= set(re.findall(r"\w+", done.stdout))
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert not re.search(r"\b(numpy|numba|redis|aiohttp)$", done.stderr, re.MULTILINE)
    assert not re.search(r"<(str|int|float|path|list)", done.stdout)


def test_the_shell_can_complete() -> None:
    """Verbs, as bash asks for them."""
    environ = {**os.environ, "_RECOLLECT_COMPLETE": "complete_bash", "COMP_WORDS": "recollect mod", "COMP_CWORD": "1"}
    argv = [sys.executable, "-c", "import sys; sys.argv[0] = 'recollect'; from ops.cli import main; main()"]
    assert subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, env=environ).stdout.split() == ["models"]
