"""An installation as in a container: PID 1, in any folder, without a home directory of the user."""

import contextlib
import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from loadbalancer import roster
from tests.integration.installation import DATA, Up

ROOT = Path(__file__).parents[2]
_AS_PID_1 = ["unshare", "--fork", "--pid", "--mount-proc", "--kill-child"]


class Contained(Up):
    """An `up` that is PID 1 of a PID namespace, started in the root folder and without HOME."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self.home = folder / "var"
        self.environ = {
            **{name: value for name, value in os.environ.items() if name not in {"HOME", "XDG_STATE_HOME"}},
            "RECOLLECT_HOME": str(self.home),
            "PYTHONPATH": str(ROOT),
        }
        self.printed = []
        self.groups = {}
        argv = [*_AS_PID_1, sys.executable, "-m", "ops", "up", "--replicas", "1", "--port", str(port), "--data", DATA]
        self.process = subprocess.Popen(
            argv, env=self.environ, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def record_groups(self) -> None:
        """Record nothing: the roster holds pids of the inner namespace."""

    def init(self) -> int:
        """Return the pid of the inner PID 1 in the outer namespace."""
        (child,) = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(child)

    def children(self) -> dict[int, tuple[str, str]]:
        """Return the children of PID 1, by pid in the outer namespace: name and state."""
        found = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                head, _, rest = path.read_text().rpartition(")")
                state, parent = rest.split()[:2]
                if int(parent) == self.init():
                    found[int(head.split()[0])] = (head.partition("(")[2], state)
        return found


@pytest.fixture
def contained(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Contained]:
    if subprocess.run([*_AS_PID_1, "true"], stderr=subprocess.PIPE).returncode != 0:
        pytest.skip("this user may not make a PID namespace")
    made = Contained(tmp_path, free_port())
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.process.kill()
        made.process.communicate()


def test_as_pid_1_it_serves_reaps_and_stops(contained: Contained, wait_until: Callable[..., None]) -> None:
    """It inherits the workers of a killed nginx and leaves no zombie; SIGTERM stops all parts in order."""
    contained.wait_for("stop:")
    assert f"State in {contained.home}, logs in {contained.home}/logs.\n" in contained.printed
    assert contained.request("GET", "/recommend/1")[0] == 200
    masters = [pid for pid, (name, _) in contained.children().items() if name == "nginx"]
    assert len(masters) == 2
    os.kill(masters[0], signal.SIGKILL)
    wait_until(lambda: masters[0] not in contained.children(), what="the master to be reaped")
    wait_until(
        lambda: (
            all(row.state == "ready" for row in roster.read(contained.home))
            and "Z" not in {state for _, state in contained.children().values()}
        ),
        what="every orphan to be reaped",
    )
    with contextlib.suppress(OSError, http.client.HTTPException):
        contained.request("GET", "/recommend/1")
    assert contained.request("GET", "/recommend/1")[0] == 200
    os.kill(contained.init(), signal.SIGTERM)
    out, _ = contained.process.communicate(timeout=40)
    assert contained.process.returncode == 0
    assert out.endswith("Stopped.\n")
    assert not (contained.home / "run").exists()


def test_commands_use_the_same_home_from_any_folder(tmp_path: Path) -> None:
    """A model trained from one folder is listed from another, by recollect.toml or the user's default home."""
    place = tmp_path / "shop"
    for folder in (place / "a", place / "b", tmp_path / "elsewhere"):
        folder.mkdir(parents=True)
    (place / "recollect.toml").write_text('home = "state"\n')
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RECOLLECT_")}

    def recollect(folder: Path, *words: str, **more: str) -> str:
        argv = [sys.executable, "-m", "ops", *words]
        done = subprocess.run(
            argv,
            cwd=folder,
            env={**environ, "PYTHONPATH": str(ROOT), **more},
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    output = recollect(place / "a", "train", "--data", "demo:60x40x900", "--algorithm", "popularity")
    assert f"in {place}/state/models" in output
    (version,) = (place / "state" / "models").glob("popularity-*")
    assert version.name in recollect(place / "b", "models", "list")
    assert version.name in recollect(tmp_path / "elsewhere", "models", "list", RECOLLECT_HOME=str(place / "state"))
    assert version.name not in recollect(tmp_path / "elsewhere", "models", "list")
    found = recollect(place / "b", "doctor", "--json")
    assert str(place / "recollect.toml") in found
