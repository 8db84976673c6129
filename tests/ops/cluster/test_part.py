"""Whether a command takes part in a cluster itself; that it does is in tests/integration/test_cluster.py."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from loadbalancer import home
from loadbalancer.errors import AlreadyRunning
from ops.cluster import part
from ops.cluster.members import part_path
from ops.cluster.part import part_of_command
from ops.commands.cluster import join_command
from service.config import Config, from_env
from service.errors import RunError, UsageError
from service.executors.ray_connection import COMMAND_LABEL, VERSION_LABEL

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
    with part_of_command(config, tmp_path / "token", "127.0.0.1:1", "127.0.0.1") as address:
        assert address == "127.0.0.1"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("same_home", [True, False])
def test_a_command_does_not_use_the_part_of_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same_home: bool
) -> None:
    """It would be gone with that command; one of another home directory is waited for, as it may have been killed."""
    monkeypatch.setattr(part, "labels_at", lambda *_: [OF_COMMAND])
    if not same_home:
        monkeypatch.setattr(part, "_NOTICED_WITHIN_S", 0.0)
    config = from_env({"RECOLLECT_HOME": str(tmp_path)})
    with (
        home.held(config.cluster_dir) if same_home else nullcontext(),
        pytest.raises(RunError, match=r"^Another command of this machine .* cluster join 127\.0\.0\.1:1 --workers 0$"),
        part_of_command(config, tmp_path / "token", "127.0.0.1:1", "127.0.0.1"),
    ):
        pass


def left_by_a_killed_part(folder: Path) -> Config:
    """Return settings of a home directory that says that it is a part of a cluster."""
    config = from_env({"RECOLLECT_HOME": str(folder)})
    part_path(config).parent.mkdir(parents=True)
    part_path(config).write_text("{}")
    return config


def test_the_part_of_a_killed_command_is_replaced_when_the_head_has_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then its processes seem to live; what it has left does not say that the new part is ready."""
    answers = iter([[OF_COMMAND], [OF_COMMAND], []])
    config = left_by_a_killed_part(tmp_path)

    @contextmanager
    def node(*_: Any) -> Iterator[None]:
        assert next(answers, None) is None
        assert not part_path(config).exists()
        yield

    monkeypatch.setattr(part, "labels_at", lambda *_: next(answers))
    monkeypatch.setattr(part, "_POLL_EVERY_S", 0.0)
    monkeypatch.setattr(part, "running_node", node)
    with part_of_command(config, tmp_path / "token", "127.0.0.1:1", "127.0.0.1") as address:
        assert address == "127.0.0.1"
        assert part_path(config).exists()
    assert not part_path(config).exists()


def test_a_machine_that_waits_for_its_head_is_not_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a killed part has left; one that runs keeps its own."""
    config = left_by_a_killed_part(tmp_path)
    monkeypatch.setenv("RECOLLECT_HOME", str(tmp_path))
    monkeypatch.delenv("RECOLLECT_CLUSTER_TOKEN_FILE", raising=False)
    seen = []
    monkeypatch.setattr(part, "wait_for_head", lambda *_: seen.append(part_path(config).exists()))
    with pytest.raises(UsageError, match="token"):
        join_command("127.0.0.1:1", wait_s=600.0)
    assert seen == [False]
    with home.held(config.cluster_dir):
        part_path(config).write_text("{}")
        with pytest.raises(AlreadyRunning):
            join_command("127.0.0.1:1", wait_s=600.0)
        assert part_path(config).exists()
