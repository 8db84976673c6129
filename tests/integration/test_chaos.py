"""The drill against the real system: one of its own, and one that is running."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from loadbalancer.supervision.processes import group_members
from tests.integration.installation import DATA, Up

_CHAOS = [sys.executable, "-m", "ops", "chaos"]


def test_a_quick_drill_passes(tmp_path: Path) -> None:
    """The main faults in half a minute: no request fails, no event is lost, and the drill removes its folder."""
    page = tmp_path / "drill.html"
    options = ["--quick", "--duration", "2", "--replicas", "2", "--data", DATA, "--json", "--report", str(page)]
    # A temporary folder of its own: another drill may run on this machine.
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run([*_CHAOS, *options], env=environ, capture_output=True, text=True, timeout=110)
    report = json.loads(done.stdout)
    assert report["ok"], (report["breaches"], [row for row in report["faults"] if row["verdict"] == "BREACH"])
    assert done.returncode == 0
    assert [row["name"] for row in report["faults"]] == [
        *("quiet", "kill-any", "freeze-replica", "reload", "redis-wiped", "kill-consumer"),
    ]
    assert {row["verdict"] for row in report["faults"]} == {"PASS"}
    assert all(row["figures"]["requests"] > 150 for row in report["faults"])
    (stage,) = report["stages"]
    assert stage["expected"] > 1000
    assert stage["audit"]["accepted"] >= stage["expected"]
    assert stage["audit"]["archived"] + stage["audit"]["missing"] <= stage["audit"]["accepted"]
    assert "<svg" in page.read_text()
    assert list(tmp_path.glob("recollect-chaos-*")) == []


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    made = Up(tmp_path_factory.mktemp("chaos"), "--data", DATA)
    try:
        made.wait_for("stop:")
        yield made
    finally:
        made.end()


def test_a_running_system_can_be_drilled(up: Up, wait_until: Callable[..., None]) -> None:
    """The home directory names it. A fault that needs an instrumented system is skipped, never passed."""
    wait_until(up.ready, 20, what="every part to be ready")
    options = ["--home", str(up.home), "--yes", "--quick", "--faults", "redis-oom,redis-slow", "--duration", "2"]
    done = up.recollect("chaos", *options, "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 0, report
    assert {row["name"]: row["verdict"] for row in report["faults"]} == {
        "quiet": "PASS",
        "redis-oom": "PASS",
        "redis-slow": "SKIPPED",
    }
    assert up.ready()
    assert up.process.poll() is None


def test_an_interrupted_drill_undoes_its_fault(up: Up, wait_until: Callable[..., None]) -> None:
    """Ctrl-C while the replicas are frozen: they run again, and the exit status is that of an interrupt."""
    wait_until(up.ready, 20, what="every part to be ready")
    row = up.row("redis")
    assert row.pid is not None

    def state() -> str:
        return Path(f"/proc/{row.pid}/stat").read_text().rpartition(")")[2].split()[0]

    options = ["--home", str(up.home), "--yes", "--quick", "--faults", "redis-frozen", "--duration", "60"]
    drill = subprocess.Popen([*_CHAOS, *options], env=up.environ, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: state() == "T", 30, what="Redis to be frozen")
        drill.send_signal(signal.SIGINT)
        _, errors = drill.communicate(timeout=30)
        assert drill.returncode == 130
        assert "Traceback" not in errors
        wait_until(lambda: state() != "T", what="Redis to be thawed")
    finally:
        drill.kill()
        drill.wait()
        for pid in group_members(row.pid, row.output):
            os.kill(pid, signal.SIGCONT)


def test_an_instrumented_system_leaves_no_disk_mounted(tmp_path: Path) -> None:
    """Small disks, a proxy and clocks exist during the drill and are removed after it."""
    options = ["--quick", "--faults", "redis-lossy,spool-full,clock-ahead", "--duration", "1", "--replicas", "2"]
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [*_CHAOS, *options, "--data", DATA, "--json"], env=environ, capture_output=True, text=True, timeout=110
    )
    report = json.loads(done.stdout)
    assert done.returncode == 0, (report["breaches"], [(row["name"], row["why"]) for row in report["faults"]])
    verdicts = {row["name"]: (row["verdict"], row["why"]) for row in report["faults"]}
    assert verdicts["redis-lossy"] == ("PASS", [])
    if os.geteuid() == 0 and shutil.which("cc") is not None:
        assert verdicts["spool-full"] == ("PASS", [])
        assert verdicts["clock-ahead"] == ("PASS", [])
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
    assert list(tmp_path.iterdir()) == []
