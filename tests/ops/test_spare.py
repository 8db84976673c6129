"""A spare: loaded, waiting, and then the part that it becomes."""

import subprocess
from collections.abc import Callable
from pathlib import Path

from loadbalancer.supervision.processes import Command, Spare, group_members
from ops.program import SPARE

WaitUntil = Callable[..., None]
_ENVIRON = {"PATH": "/usr/bin:/bin"}


def _command(folder: Path, *arguments: str, environ: dict[str, str] | None = None) -> Command:
    return Command(("never", "started"), environ or _ENVIRON, folder / "part.out", arguments=arguments)


def _is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_spare_becomes_a_part(tmp_path: Path, wait_until: WaitUntil) -> None:
    """Its output goes to the part's file, and its exit status is the part's."""
    spare = Spare(SPARE, {**_ENVIRON, "RECOLLECT_HOME": str(tmp_path)}, tmp_path / "spare.out")
    command = _command(tmp_path, "consume", "--admin-port", "x", environ={**_ENVIRON, "RECOLLECT_HOME": str(tmp_path)})
    child = spare.become(command)
    assert child is not None
    wait_until(child.exited, 30, what="the part to refuse its port")
    assert child.reap() == 2
    assert "--admin-port" in command.output.read_text()
    assert (tmp_path / "spare.out").read_text() == ""


def test_a_part_from_a_spare_has_its_output_and_command_line(tmp_path: Path, wait_until: WaitUntil) -> None:
    """The next start finds leftovers of a killed supervisor whether or not they were spares."""
    environ = {**_ENVIRON, "RECOLLECT_HOME": str(tmp_path), "RECOLLECT_LOGS": str(tmp_path)}
    spare = Spare(SPARE, environ, tmp_path / "spare.out")
    arguments = ("consume", "--admin-port", "1")
    child = spare.become(_command(tmp_path, *arguments, environ=environ))
    assert child is not None
    shown = Path(f"/proc/{child.pid}/cmdline")
    wait_until(lambda: b"\0".join(map(str.encode, ("-m", "ops", *arguments))) in shown.read_bytes(), 30)
    assert group_members(child.pid, str(tmp_path / "part.out")) == [child.pid]
    child.reap()


def test_a_spare_exits_with_its_supervisor(tmp_path: Path) -> None:
    """The end of its standard input ends it."""
    process = subprocess.Popen(SPARE, stdin=subprocess.PIPE, cwd=Path(__file__).parents[2])
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_a_spare_that_exited_or_has_another_environment_is_not_used(tmp_path: Path, wait_until: WaitUntil) -> None:
    """The caller then starts the part without one."""
    spare = Spare(("/bin/false",), _ENVIRON, tmp_path / "spare.out")
    wait_until(lambda: _is_zombie(spare.pid), what="the spare to exit")
    assert spare.become(_command(tmp_path, "consume")) is None
    other = Spare(("/bin/sleep", "600"), _ENVIRON, tmp_path / "spare.out")
    assert other.become(_command(tmp_path, "consume", environ={"PATH": "/elsewhere"})) is None
    assert not Path(f"/proc/{other.pid}").exists()
