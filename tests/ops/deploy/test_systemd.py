"""The systemd units are valid and hardened, and start commands that exist; test_booted_units.py starts them."""

import configparser
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer

from ops import cli
from tests.support.machines.programs import need_programs

ROOT = Path(__file__).resolve().parents[3]
UNITS = ROOT / "ops" / "deploy" / "systemd"
SERVICES = sorted(UNITS.glob("*.service"))
PROGRAM = "/opt/recollect/.venv/bin/recollect"
# Of 10. docs/ec2.md says what is left.
MOST_EXPOSED = 2.0


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
    """By systemd's own sum."""
    need_programs("systemd-analyze")
    report = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)], capture_output=True, text=True
    )
    found = re.search(r"Overall exposure level for .*: ([0-9.]+) ", report.stdout)
    assert found, report.stdout + report.stderr
    assert float(found[1]) <= MOST_EXPOSED


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_units_differ_only_in_what_they_run(unit: Path) -> None:
    """The user, the settings, the folders and all that is forbidden are written in each, since units cannot include."""
    assert "ProtectSystem=strict" in alike(unit)
    assert alike(unit) == alike(SERVICES[0])


def alike(unit: Path) -> list[str]:
    """Return the lines that all units have."""
    return unit.read_text().partition("\nUser=")[2].partition("[Install]")[0].strip().splitlines()


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


def test_the_units_and_the_settings_name_the_same_places() -> None:
    """A service may write only to the folders that its unit opens."""
    parser = configparser.ConfigParser()
    parser.read_string("[settings]\n" + (UNITS / "recollect.toml").read_text())
    assert parser["settings"]["home"] == '"/var/lib/recollect"'
    assert parser["settings"]["logs"] == '"/var/log/recollect"'
    for unit in SERVICES:
        assert [lines(unit, f"{kind}Directory") for kind in ("State", "Logs", "Cache")] == [["recollect"]] * 3
        assert lines(unit, "ProtectSystem") == ["strict"]
