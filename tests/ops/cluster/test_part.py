"""Whether a command takes part in a cluster itself; that it does is in tests/integration/test_cluster.py."""

from pathlib import Path

import pytest

from ops.cluster import part
from ops.cluster.part import part_of_command
from service.config import from_env
from service.errors import RunError
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


def test_a_command_does_not_use_the_part_of_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be gone with that command."""
    monkeypatch.setattr(part, "labels_at", lambda *_: [OF_COMMAND])
    config = from_env({"RECOLLECT_HOME": str(tmp_path)})
    with (
        pytest.raises(RunError, match=r"^Another command of this machine .* cluster join 127\.0\.0\.1:1 --workers 0$"),
        part_of_command(config, tmp_path / "token", "127.0.0.1:1", "127.0.0.1"),
    ):
        pass
