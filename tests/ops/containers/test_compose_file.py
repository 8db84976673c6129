"""The compose file: as its tool reads it, and as restricted as it says. Its services run in test_image.py."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from loadbalancer.settings import BalancerSettings
from ops.cli import VERBS
from ops.options.environment import paths_by_name
from tests.support.machines.composed import FILE, parsed


@pytest.fixture
def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = parsed({})["services"]
    return found


def test_its_tool_accepts_it(tmp_path: Path) -> None:
    """`docker-compose config` needs no engine; releases before 2 do not know the name of a project."""
    if shutil.which("docker-compose") is None and os.environ.get("CI") != "true":
        pytest.skip("docker-compose is not here")
    file = tmp_path / "compose.yaml"
    file.write_text(re.sub("^name: .*$", "", FILE.read_text(), flags=re.MULTILINE))
    done = subprocess.run(["docker-compose", "-f", file, "config"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(yaml.safe_load(done.stdout)["services"]) == set(parsed({})["services"])


def test_every_container_is_restricted(services: dict[str, dict[str, Any]]) -> None:
    """Read-only, another user than root, no capabilities, no way to new privileges, a bound on processes."""
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["user"] == "1000:1000", name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["pids_limit"] <= 1024, name
        assert "privileged" not in service, name


def test_only_the_edge_is_published(services: dict[str, dict[str, Any]]) -> None:
    """On loopback, unless asked otherwise; the others are in a network without a way out."""
    assert [name for name, service in services.items() if "ports" in service] == ["edge"]
    assert services["edge"]["ports"] == ["127.0.0.1:8080:8080"]
    assert parsed({"PUBLISH": "0.0.0.0:80"})["services"]["edge"]["ports"] == ["0.0.0.0:80:8080"]
    assert {name for name, service in services.items() if "outer" in service["networks"]} == {"edge"}
    assert parsed({})["networks"]["inner"] == {"internal": True}


def test_its_commands_and_settings_exist(services: dict[str, dict[str, Any]]) -> None:
    """And the edge sends to every replica."""
    known = paths_by_name()
    for name, service in services.items():
        assert set(service.get("environment", {})) <= set(known), name
        if "entrypoint" not in service:
            assert service["command"][0] in VERBS, name
    remote = services["edge"]["environment"]["RECOLLECT_REMOTE_REPLICAS"].split(",")
    assert remote == [f"{name}:8081" for name in services if name.startswith("replica-")]
    assert len(remote) == BalancerSettings().replicas
    slots = [service["command"][-1] for name, service in services.items() if name.startswith("replica-")]
    assert slots == ["0", "1", "2"]


def test_state_is_in_volumes(services: dict[str, dict[str, Any]]) -> None:
    """Every part writes to volumes alone; who may change what is as small as can be."""
    volumes = set(parsed({})["volumes"])
    for name, service in services.items():
        mounts = [mount.split(":") for mount in service["volumes"]]
        assert all(source in volumes for source, *_ in mounts if not source.startswith((".", "/"))), name
        assert any(target == "/var/lib/recollect" for _, target, *_ in mounts), name
    writers = {name for name, service in services.items() if "models:/var/lib/recollect/models" in service["volumes"]}
    assert writers == {"consumer", "recollect"}
    assert not [mount for mount in services["edge"]["volumes"] if mount.startswith("state:")]
