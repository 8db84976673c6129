"""Whether a command takes part in a cluster itself; that it does is in tests/integration/test_cluster.py."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from loadbalancer import home
from loadbalancer.errors import AlreadyRunning
from ops.cluster import part
from ops.cluster.machine import own_address, parse_address
from ops.cluster.members import address_here, part_path
from ops.cluster.part import part_of_command
from ops.commands.cluster import join_command, status_command
from service.config import Config, from_env
from service.errors import RunError, UsageError
from service.executors.ray_connection import COMMAND_LABEL, VERSION_LABEL

HEAD = "127.0.0.1:1"
OF_MACHINE = {VERSION_LABEL: "0.5.0-1"}
OF_COMMAND = {VERSION_LABEL: "0.5.0-1", COMMAND_LABEL: "true"}


@pytest.mark.parametrize(
    "labels", [None, [OF_MACHINE], [OF_COMMAND, OF_MACHINE]], ids=["no answer", "a machine", "a machine and a command"]
)
def test_a_command_uses_the_part_of_its_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels: list[dict[str, str]] | None
) -> None:
    """And where the head does not answer, it starts nothing: its connection says what is wrong."""
    monkeypatch.setattr(part, "labels_at", lambda *_: labels)
    config = from_env({"RECOLLECT_HOME": str(tmp_path)})
    with part_of_command(config, tmp_path / "token", HEAD, "127.0.0.1") as address:
        assert address == "127.0.0.1"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("same_home", [True, False])
def test_a_command_does_not_use_the_part_of_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same_home: bool
) -> None:
    """It would be gone with that command; this home directory has left none, so nothing is waited for."""
    answers = iter([[OF_COMMAND]])
    monkeypatch.setattr(part, "labels_at", lambda *_: next(answers))
    config = from_env({"RECOLLECT_HOME": str(tmp_path)})
    with (
        home.held(config.cluster_dir) if same_home else nullcontext(),
        pytest.raises(RunError, match=r"^Another command of this machine .* cluster join 127\.0\.0\.1:1 --workers 0$"),
        part_of_command(config, tmp_path / "token", HEAD, "127.0.0.1"),
    ):
        pass


def left_by_a_killed_part(folder: Path, address: str = "127.0.0.1") -> Config:
    """Return settings of a home directory that says that it is a part of the cluster at 127.0.0.1:1."""
    config = from_env({"RECOLLECT_HOME": str(folder)})
    part_path(config).parent.mkdir(parents=True)
    part_path(config).write_text(json.dumps({"head": HEAD, "address": address}))
    return config


@pytest.mark.parametrize("of", [OF_COMMAND, OF_MACHINE], ids=["command", "machine"])
def test_a_killed_part_is_replaced_when_the_head_has_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], of: dict[str, str]
) -> None:
    """Until then its processes seem to live; what it has left does not say that the new part is ready."""
    answers = iter([[of], [of], []])
    config = left_by_a_killed_part(tmp_path)

    @contextmanager
    def node(*_: Any) -> Iterator[None]:
        assert next(answers, None) is None
        assert not part_path(config).exists()
        yield

    monkeypatch.setattr(part, "labels_at", lambda *_: next(answers))
    monkeypatch.setattr(part, "_POLL_EVERY_S", 0.0)
    monkeypatch.setattr(part, "running_node", node)
    with part_of_command(config, tmp_path / "token", HEAD, "127.0.0.1") as address:
        assert address == "127.0.0.1"
        assert part_path(config).exists()
    assert not part_path(config).exists()
    assert capsys.readouterr() == (
        "",
        f"Waiting for the head at {HEAD} to notice that this machine's part was killed.\n",
    )


@pytest.mark.parametrize("others", [[OF_MACHINE], [OF_COMMAND]], ids=["machine", "command"])
def test_what_remains_after_a_killed_part_is_of_another_home_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: list[dict[str, str]]
) -> None:
    """A machine that has joined meanwhile is used, and a command is not; the next command waits no more."""
    answers = iter([[OF_COMMAND], [OF_COMMAND, *others], others])
    config = left_by_a_killed_part(tmp_path)
    monkeypatch.setattr(part, "labels_at", lambda *_: next(answers))
    monkeypatch.setattr(part, "_POLL_EVERY_S", 0.0)
    refused = pytest.raises(RunError, match="Another command") if others == [OF_COMMAND] else nullcontext()
    with refused, part_of_command(config, tmp_path / "token", HEAD, "127.0.0.1") as address:
        assert address == "127.0.0.1"
    assert not part_path(config).exists()
    assert next(answers, None) is None


def test_a_home_directory_with_a_killed_part_says_nothing_of_its_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the part runs, it says the head and the address, which another interface may have."""
    config = left_by_a_killed_part(tmp_path, address="192.0.2.7")
    monkeypatch.setenv("RECOLLECT_HOME", str(tmp_path))
    assert address_here(config, HEAD) == own_address(parse_address(HEAD))
    with pytest.raises(UsageError, match="not a part of a cluster; name one"):
        status_command()
    with home.held(config.cluster_dir):
        assert address_here(config, HEAD) == "192.0.2.7"


def test_a_machine_that_waits_for_its_head_is_not_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a killed part has left; one that runs keeps its own."""
    config = left_by_a_killed_part(tmp_path)
    monkeypatch.setenv("RECOLLECT_HOME", str(tmp_path))
    monkeypatch.delenv("RECOLLECT_CLUSTER_TOKEN_FILE", raising=False)
    seen = []
    monkeypatch.setattr(part, "wait_for_head", lambda *_: seen.append(part_path(config).exists()))
    with pytest.raises(UsageError, match="token"):
        join_command(HEAD, wait_s=600.0)
    assert seen == [False]
    with home.held(config.cluster_dir):
        part_path(config).write_text("{}")
        with pytest.raises(AlreadyRunning):
            join_command(HEAD, wait_s=600.0)
        assert part_path(config).exists()
