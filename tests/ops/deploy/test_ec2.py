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
from tests.support.machines.programs import need_programs

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
    scripts = [words[2].splitlines() for words in loaded["runcmd"] if words[:2] == ["sh", "-ec"]]
    commands = [words for words in loaded["runcmd"] if words[:2] != ["sh", "-ec"]]
    commands += [line.split() for lines in scripts for line in lines]
    assert any(words[:2] == ["systemctl", "enable"] for words in commands)
    for words in commands:
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
    # cloud-init would format a disk by its name, whatever the disk is.
    assert "fs_setup" not in loaded
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


@pytest.fixture
def parameters(tmp_path: Path) -> Path:
    """A folder with the parameters of the store."""
    folder = tmp_path / "parameters"
    folder.mkdir()
    with KeyFile(folder).edit() as keys:
        keys.append(new_key(("recommend",), now_s=0.0)[1])
    (folder / "watermark.key").write_text("k" * 64)
    (folder / "redis-url").write_text("rediss://recollect-replica:secret@redis.internal:6380/0")
    return folder


@pytest.fixture
def programs(tmp_path: Path, parameters: Path) -> Path:
    """A folder with stand-ins: `aws` that reads the parameters, and commands that write their calls to `calls`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    record = f'#!/bin/sh\necho "$(basename "$0") $*" >>"{tmp_path}/calls"\n'
    scripts = {
        "aws": '#!/bin/sh\n[ "$1 $2 $3 $4" = "ssm get-parameter --with-decryption --name" ] || exit 2\n'
        f'cat "{parameters}/${{5#/recollect/}}"\n',
        **dict.fromkeys(("chgrp", "systemctl", "udevadm"), record),
    }
    for name, text in scripts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


def with_programs(programs: Path) -> dict[str, str]:
    return {"PATH": f"{programs}:{os.environ['PATH']}:/usr/sbin:/sbin"}


def fetching(folder: Path) -> Path:
    """Return the script that fetches the secrets, as a file in a folder."""
    script = folder / "fetch-secrets.sh"
    script.write_text(written(FOLDER / "replica-machine.yaml", f"/etc/recollect/{script.name}"))
    return script


def test_a_machine_of_many_fetches_its_secrets(tmp_path: Path, parameters: Path, programs: Path) -> None:
    """Its script writes settings that the service accepts, and files for root and the service's group alone."""
    fetched = tmp_path / "etc"
    fetched.mkdir()
    subprocess.run(["sh", fetching(tmp_path), fetched], env=with_programs(programs), check=True)
    given = settings_of(fetched / "recollect.toml")
    assert given["RECOLLECT_REDIS_URL"] == "rediss://recollect-replica:secret@redis.internal:6380/0"
    environ = {"RECOLLECT_FILE": str(fetched / "recollect.toml")}
    adopt(environ, tmp_path)
    assert environ["RECOLLECT_BALANCER_HOST"] == "0.0.0.0"
    assert KeyFile(fetched).read() == KeyFile(parameters).read()
    assert (fetched / "watermark.key").read_text() == "k" * 64
    assert {stat.S_IMODE(path.stat().st_mode) for path in fetched.iterdir()} == {0o440}


@pytest.mark.parametrize("missing", [None, "keys.json", "watermark.key", "redis-url"])
def test_a_machine_without_its_secrets_starts_nothing(
    tmp_path: Path, parameters: Path, programs: Path, missing: str | None
) -> None:
    """Whichever parameter cannot be read; with all of them the unit is started."""
    folder = tmp_path / "etc"
    folder.mkdir()
    fetching(folder)
    if missing is not None:
        (parameters / missing).unlink()
    shell, option, script = document(FOLDER / "replica-machine.yaml")["runcmd"][-1]
    # The script writes to its own folder, unless it is told another one.
    script = script.replace("fetch-secrets.sh", f"fetch-secrets.sh {folder}").replace("/etc/recollect", str(folder))
    done = subprocess.run([shell, option, script], env=with_programs(programs), capture_output=True, check=False)
    calls = tmp_path / "calls"
    if missing is None:
        assert done.returncode == 0, done.stderr
        assert calls.read_text().splitlines()[-1] == "systemctl enable --now recollect-balance.service"
    else:
        assert done.returncode != 0
        assert not calls.exists()
        assert not (folder / "recollect.toml").exists()


class Disks:
    """Files that stand for the disks of an instance, with the links that udev makes."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self._folder = folder
        self._environ = environ
        self._links = folder / "by-id"
        self._links.mkdir()

    def add(self, name: str, *links: str) -> Path:
        """Return a new disk, which is empty."""
        disk = self._folder / name
        with disk.open("wb") as file:
            file.truncate(4 << 20)
        for link in links:
            (self._links / link).symlink_to(disk)
        return disk

    def boot(self, path: Path) -> subprocess.CompletedProcess[str]:
        """Run what the user data does with disks at a boot."""
        ((shell, options, script),) = document(path)["bootcmd"]
        script = script.replace("/dev/disk/by-id", str(self._links))
        return subprocess.run([shell, options, script], env=self._environ, capture_output=True, text=True)

    def label(self, disk: Path) -> str:
        """Return the label of the file system of a disk, or nothing."""
        words = ["blkid", "-p", "-o", "value", "-s", "LABEL", str(disk)]
        return subprocess.run(words, env=self._environ, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def disks(tmp_path: Path, programs: Path) -> Disks:
    need_programs("blkid", "mkfs.ext4", "cmp")
    return Disks(tmp_path, with_programs(programs))


EBS = "nvme-Amazon_Elastic_Block_Store_vol"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_only_a_new_volume_is_formatted(path: Path, disks: Disks) -> None:
    """Not a disk of the host, not a partition, and not a volume on which there is something."""
    local = disks.add("local", "nvme-Amazon_EC2_NVMe_Instance_Storage_AWS0")
    partition = disks.add("partition", f"{EBS}0-part14")
    used = disks.add("used", f"{EBS}1")
    used.write_bytes(b"something" + bytes(4 << 20))
    volume = disks.add("volume", f"{EBS}2", f"{EBS}2_1")
    done = disks.boot(path)
    assert done.returncode == 0, done.stderr
    assert [disks.label(disk) for disk in (local, partition, used, volume)] == ["", "", "", "recollect"]
    # The next boot finds its files.
    before = volume.read_bytes()
    assert disks.boot(path).returncode == 0
    assert volume.read_bytes() == before
    assert disks.label(local) == ""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_none_of_several_new_volumes_is_formatted(path: Path, disks: Disks) -> None:
    """It is said which they are."""
    volumes = [disks.add(f"volume{number}", f"{EBS}{number}") for number in range(2)]
    done = disks.boot(path)
    assert done.returncode == 1
    assert all(str(volume) in done.stderr for volume in volumes)
    assert [disks.label(volume) for volume in volumes] == ["", ""]
