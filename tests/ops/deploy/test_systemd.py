"""The systemd units are valid and hardened, and what they start does nothing that they forbid."""

import configparser
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import typer

from ops import cli
from tests.support.programs import need_programs

ROOT = Path(__file__).resolve().parents[3]
UNITS = ROOT / "ops" / "deploy" / "systemd"
SERVICES = sorted(UNITS.glob("*.service"))
PROGRAM = "/opt/recollect/.venv/bin/recollect"
# Of 10. docs/ec2.md says what is left.
MOST_EXPOSED = 2.0
# As root, nginx and the files of a home get an owner, which a service that is another user's never tries.
OF_ROOT = {"chown", "fchown", "setgroups", "setgid", "setuid", "initgroups"}


def lines(unit: Path, name: str) -> list[str]:
    """Return the values of a directive, in order; it may be there several times."""
    return re.findall(rf"^{name}=(.*)$", unit.read_text(), re.MULTILINE)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units and settings, as install.sh puts them into a root folder."""
    subprocess.run(["sh", UNITS / "install.sh", ROOT, tmp_path / "root"], check=True)
    return tmp_path / "root"


def test_systemd_accepts_the_units(installed: Path, tmp_path: Path) -> None:
    """Without a warning, with a program in its place."""
    need_programs("systemd-analyze")
    program = tmp_path / "recollect"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    units = sorted((installed / "etc/systemd/system").iterdir())
    assert [unit.name for unit in units] == sorted(path.name for path in [*SERVICES, UNITS / "recollect-nightly.timer"])
    for unit in units:
        text = unit.read_text().replace(PROGRAM, str(program)).replace("file:/opt/recollect", f"file:{ROOT}")
        unit.write_text(text)
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_a_unit_is_little_exposed(unit: Path) -> None:
    """By systemd's own sum; all units are hardened alike."""
    need_programs("systemd-analyze")
    report = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)], capture_output=True, text=True
    )
    found = re.search(r"Overall exposure level for .*: ([0-9.]+) ", report.stdout)
    assert found, report.stdout + report.stderr
    assert float(found[1]) <= MOST_EXPOSED
    marker = "# What the service may not do."
    assert hardening(unit, marker) == hardening(SERVICES[0], marker)


def hardening(unit: Path, marker: str) -> str:
    return unit.read_text().partition(marker)[2].partition("[Install]")[0].strip()


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_a_unit_starts_commands_that_exist(unit: Path) -> None:
    """Verb by verb, with their options; variables are those that the unit sets."""
    program: object = typer.main.get_command(cli.application())
    environ = dict(pair.partition("=")[::2] for line in lines(unit, "Environment") for pair in shlex.split(line))
    for command in lines(unit, "ExecStart"):
        name, *words = command.lstrip("-").split()
        assert name == PROGRAM
        words = [more for word in words for more in (shlex.split(environ[word[1:]]) if word[0] == "$" else [word])]
        found = program
        while words and words[0] in getattr(found, "commands", {}):
            found = found.commands[words.pop(0)]  # type: ignore[attr-defined] # typer's groups are private to it
        known = {option for parameter in found.params for option in parameter.opts}  # type: ignore[attr-defined]
        assert found is not program
        assert {word for word in words if word.startswith("-")} <= known


def test_an_operator_keeps_the_settings(installed: Path) -> None:
    """Installing again replaces the units and not /etc/recollect; the settings are read by every command."""
    settings = installed / "etc/recollect/recollect.toml"
    settings.write_text('home = "/srv/elsewhere"\n')
    (installed / "etc/systemd/system/recollect.service").write_text("old")
    subprocess.run(["sh", UNITS / "install.sh", ROOT, installed], check=True)
    assert settings.read_text() == 'home = "/srv/elsewhere"\n'
    assert (installed / "etc/systemd/system/recollect.service").read_bytes() == (
        UNITS / "recollect.service"
    ).read_bytes()
    assert oct(settings.stat().st_mode & 0o777) == "0o640"
    wrapper = (installed / "usr/local/bin/recollect").read_text()
    assert "RECOLLECT_FILE=/etc/recollect/recollect.toml" in wrapper
    for unit in SERVICES:
        assert "RECOLLECT_FILE=/etc/recollect/recollect.toml" in "\n".join(lines(unit, "Environment"))


@cache
def allowed_calls(unit: Path) -> frozenset[str]:
    """Return the system calls that the filters of a unit allow, by systemd's own groups."""
    allowed: set[str] = set()
    for value in lines(unit, "SystemCallFilter"):
        names = set().union(*(group(name) for name in value.lstrip("~").split()))
        allowed = allowed - names if value.startswith("~") else allowed | names
    return frozenset(allowed)


@cache
def group(name: str) -> frozenset[str]:
    if not name.startswith("@"):
        return frozenset({name})
    shown = subprocess.run(["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True)
    members = [line.strip() for line in shown.stdout.splitlines()[1:]]
    return frozenset[str]().union(*(group(member) for member in members if member and not member.startswith("#")))


def test_what_a_unit_starts_makes_no_call_that_it_forbids(
    installed: Path, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    """`recollect up` by the unit's own command and settings, from the first training to the stop, under strace."""
    need_programs("systemd-analyze", "strace")
    unit = UNITS / "recollect.service"
    (command,) = lines(unit, "ExecStart")
    assert command == f"{PROGRAM} up"
    port, settings = free_port(), installed / "etc/recollect/recollect.toml"
    place = str(tmp_path)
    settings.write_text(settings.read_text().replace('"/var', f'"{place}/var') + f"port = {port}\nreplicas = 1\n")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RECOLLECT_")}
    trace = "!" + ",".join(f"?{name}" for name in sorted(allowed_calls(unit) | OF_ROOT))
    strace = ["strace", "-f", "--seccomp-bpf", "-qq", "-e", "signal=none", "-e", f"trace={trace}"]
    argv = [*strace, "-o", str(tmp_path / "trace"), sys.executable, "-m", "ops", "up"]
    process = subprocess.Popen(
        # A model of seconds; the unit's own command takes the demo data.
        [*argv, "--data", "demo:60x40x900", "--algorithm", "popularity"],
        env={**environ, "RECOLLECT_FILE": str(settings), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd="/",
    )
    assert process.stdout is not None
    printed = [""]
    while "stop:" not in printed[-1]:
        printed.append(process.stdout.readline())
        assert printed[-1], "".join(printed)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/recommend/1", timeout=5) as answer:
        assert len(answer.read().split(b",")) == 20
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    began_s = time.monotonic()
    os.kill(int(child), getattr(signal, (lines(unit, "KillSignal") or ["SIGTERM"])[0]))
    rest, _ = process.communicate(timeout=60)
    assert (process.returncode, rest.endswith("Stopped.\n")) == (0, True), rest
    assert time.monotonic() - began_s < float(lines(unit, "TimeoutStopSec")[0])
    assert (tmp_path / "trace").read_text() == ""
    assert (tmp_path / "var/lib/recollect/models/ACTIVE").exists()


def test_the_units_and_the_settings_name_the_same_places() -> None:
    """A service may write only to the folders that its unit opens."""
    parser = configparser.ConfigParser()
    parser.read_string("[settings]\n" + (UNITS / "recollect.toml").read_text())
    assert parser["settings"]["home"] == '"/var/lib/recollect"'
    assert parser["settings"]["logs"] == '"/var/log/recollect"'
    for unit in SERVICES:
        assert [lines(unit, f"{kind}Directory") for kind in ("State", "Logs", "Cache")] == [["recollect"]] * 3
        assert lines(unit, "ProtectSystem") == ["strict"]
