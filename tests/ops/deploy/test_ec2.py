"""The user data of EC2 instances is valid; its scripts run with stand-ins for the cloud's commands."""

import os
import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops.options.environment import adopt, settings_of
from service.security.api_key import KEY_PATTERN, new_key
from service.security.key_file import KeyFile
from tests.support.programs import need_programs

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "ops" / "deploy" / "ec2"
FILES = sorted(FOLDER.glob("*.yaml"))
UNITS = ROOT / "ops" / "deploy" / "systemd"
# What installs, mounts and starts: the cloud's own machine is needed for these.
COMMANDS = {"systemctl", "git", "sh", "env", "chgrp"}


def document(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(path.read_text())
    return loaded


def written(path: Path, name: str) -> str:
    (file,) = [file for file in document(path)["write_files"] if file["path"] == name]
    content: str = file["content"]
    return content


def test_cloud_init_accepts_the_files() -> None:
    """By its own schema, which names every fault."""
    need_programs("cloud-init")
    assert [path.name for path in FILES] == ["one-machine.yaml", "replica-machine.yaml"]
    for path in FILES:
        done = subprocess.run(
            ["cloud-init", "schema", "--config-file", str(path)], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout.strip()) == (0, f"Valid cloud-config: {path}"), done.stderr


def test_the_schema_refuses_a_fault(tmp_path: Path) -> None:
    """The check above is one."""
    need_programs("cloud-init")
    faulty = tmp_path / "faulty.yaml"
    faulty.write_text(FILES[0].read_text().replace("runcmd:", "runcmd: no list\nothers:"))
    done = subprocess.run(["cloud-init", "schema", "--config-file", str(faulty)], capture_output=True, check=False)
    assert done.returncode != 0


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_its_commands_name_what_there_is(path: Path) -> None:
    """Scripts of the repository, units that they install, and mounts below the folder that the units wait for."""
    loaded = document(path)
    units = {unit.name for unit in UNITS.iterdir()}
    for words in loaded["runcmd"]:
        assert words[0] in COMMANDS
        if words[:2] == ["systemctl", "enable"]:
            assert set(words[3:]) <= units
        for word in words:
            if word.startswith("/opt/recollect/"):
                assert (ROOT / word.removeprefix("/opt/recollect/")).exists()
    for mount in loaded["mounts"]:
        assert mount[1].startswith("/var/lib/recollect")
        # Where it cannot be mounted, the machine comes up, and the units wait.
        assert "nofail" in mount[3]
    assert all(entry["overwrite"] is False for entry in loaded["fs_setup"])
    # Every process of an instance can read its user data.
    assert "PRIVATE KEY" not in path.read_text()
    assert re.search(KEY_PATTERN, path.read_text()) is None


def test_the_settings_of_one_machine_are_settings(tmp_path: Path) -> None:
    """The file is read as the service reads it."""
    file = tmp_path / "recollect.toml"
    file.write_text(written(FOLDER / "one-machine.yaml", "/etc/recollect/recollect.toml"))
    environ = {"RECOLLECT_FILE": str(file)}
    adopt(environ, tmp_path)
    assert (environ["RECOLLECT_HOME"], environ["RECOLLECT_PORT"]) == ("/var/lib/recollect", "8080")


def test_a_machine_of_many_fetches_its_secrets(tmp_path: Path) -> None:
    """Its script writes settings that the service accepts, and files for root and the service's group alone."""
    parameters, programs, fetched = tmp_path / "parameters", tmp_path / "bin", tmp_path / "etc"
    for folder in (parameters, programs, fetched):
        folder.mkdir()
    made = KeyFile(parameters)
    with made.edit() as keys:
        keys.append(new_key(("recommend",), now_s=0.0)[1])
    (parameters / "watermark.key").write_text("k" * 64)
    (parameters / "redis-url").write_text("rediss://recollect-replica:secret@redis.internal:6380/0")
    stand_in = programs / "aws"
    stand_in.write_text(
        f'#!/bin/sh\n[ "$1 $2 $3 $4" = "ssm get-parameter --with-decryption --name" ] || exit 2\n'
        f'cat "{parameters}/${{5#/recollect/}}"\n'
    )
    stand_in.chmod(0o755)
    script = tmp_path / "fetch-secrets.sh"
    script.write_text(written(FOLDER / "replica-machine.yaml", "/etc/recollect/fetch-secrets.sh"))
    environ = {"PATH": f"{programs}:{os.environ['PATH']}"}
    subprocess.run(["sh", str(script), str(fetched)], env=environ, check=True)
    given = settings_of(fetched / "recollect.toml")
    assert given["RECOLLECT_REDIS_URL"] == "rediss://recollect-replica:secret@redis.internal:6380/0"
    environ = {"RECOLLECT_FILE": str(fetched / "recollect.toml")}
    adopt(environ, tmp_path)
    assert environ["RECOLLECT_BALANCER_HOST"] == "0.0.0.0"
    assert KeyFile(fetched).read() == made.read()
    assert (fetched / "watermark.key").read_text() == "k" * 64
    assert {stat.S_IMODE(path.stat().st_mode) for path in fetched.iterdir()} == {0o440}
