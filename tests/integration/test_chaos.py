"""The drill against the real system: one of its own, and one that is running."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from loadbalancer.supervision.processes import group_members
from tests.integration.installation import DATA, Up

_CHAOS = [sys.executable, "-m", "ops", "chaos"]


def _leftovers() -> set[str]:
    return {path.name for path in Path(tempfile.gettempdir()).glob("recollect-chaos-*")}


def test_a_quick_drill_holds(tmp_path: Path) -> None:
    """The main faults, half a minute: no request fails, nothing is lost, and nothing of it is left behind."""
    before = _leftovers()
    page = tmp_path / "drill.html"
    options = ["--quick", "--duration", "3", "--replicas", "2", "--data", DATA, "--json", "--report", str(page)]
    done = subprocess.run([*_CHAOS, *options], capture_output=True, text=True, timeout=110)
    told = json.loads(done.stdout)
    assert told["ok"], (told["breaches"], [row for row in told["faults"] if row["verdict"] == "BREACH"])
    assert done.returncode == 0
    assert [row["name"] for row in told["faults"]] == [
        *("quiet", "kill-any", "freeze-replica", "reload", "redis-wiped", "kill-consumer"),
    ]
    assert {row["verdict"] for row in told["faults"]} == {"PASS"}
    assert all(row["figures"]["requests"] > 200 for row in told["faults"])
    (stage,) = told["stages"]
    assert stage["owed"] > 1000
    assert stage["audit"]["accepted"] >= stage["owed"]
    assert stage["audit"]["archived"] + stage["audit"]["missing"] <= stage["audit"]["accepted"]
    assert "<svg" in page.read_text()
    assert _leftovers() == before


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    made = Up(tmp_path_factory.mktemp("chaos"), "--data", DATA)
    try:
        made.wait_for("stop:")
        yield made
    finally:
        made.end()


def test_a_running_system_is_drilled_where_it_is(up: Up, wait_until: Callable[..., None]) -> None:
    """Found by its home directory; what needs a system of the drill's own is skipped, never passed."""
    wait_until(up.ready, 20, what="every part to be ready")
    options = ["--home", str(up.home), "--yes", "--faults", "redis-oom,redis-slow", "--duration", "3", "--rate", "50"]
    done = up.recollect("chaos", *options, "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 0, told
    assert {row["name"]: row["verdict"] for row in told["faults"]} == {
        "quiet": "PASS",
        "redis-oom": "PASS",
        "redis-slow": "SKIPPED",
    }
    assert up.ready()
    assert up.process.poll() is None


def test_a_drill_that_is_broken_off_undoes_its_fault(up: Up, wait_until: Callable[..., None]) -> None:
    """Ctrl-C while the replicas are frozen: they run again, and the exit status says that it was interrupted."""
    wait_until(up.ready, 20, what="every part to be ready")
    row = up.row("redis")
    assert row.pid is not None

    def state() -> str:
        return Path(f"/proc/{row.pid}/stat").read_text().rpartition(")")[2].split()[0]

    options = ["--home", str(up.home), "--yes", "--faults", "redis-frozen", "--duration", "60", "--rate", "20"]
    drill = subprocess.Popen([*_CHAOS, *options], env=up.environ, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: state() == "T", 30, what="Redis to be frozen")
        drill.send_signal(signal.SIGINT)
        _, said = drill.communicate(timeout=30)
        assert drill.returncode == 130
        assert "Traceback" not in said
        wait_until(lambda: state() != "T", what="Redis to be thawed")
    finally:
        drill.kill()
        drill.wait()
        for pid in group_members(row.pid, row.output):
            os.kill(pid, signal.SIGCONT)


def test_a_prepared_system_leaves_no_disk_mounted(tmp_path: Path) -> None:
    """Small disks, a proxy and clocks are there for the drill and gone after it."""
    options = ["--faults", "redis-lossy,spool-full,clock-ahead", "--duration", "2", "--rate", "50", "--replicas", "2"]
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [*_CHAOS, *options, "--data", DATA, "--json"], env=environ, capture_output=True, text=True, timeout=110
    )
    told = json.loads(done.stdout)
    assert done.returncode == 0, (told["breaches"], [(row["name"], row["why"]) for row in told["faults"]])
    verdicts = {row["name"]: (row["verdict"], row["why"]) for row in told["faults"]}
    assert verdicts["redis-lossy"] == ("PASS", [])
    if os.geteuid() == 0 and shutil.which("cc") is not None:
        assert verdicts["spool-full"] == ("PASS", [])
        assert verdicts["clock-ahead"] == ("PASS", [])
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
    assert list(tmp_path.iterdir()) == []
