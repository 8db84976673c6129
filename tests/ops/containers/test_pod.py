"""A pod has what a restricted container has, and no more; its programs are those of this machine."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ops.containers.pod import Pod, PodSpec
from ops.nodes.network import network
from service.errors import RunError
from tests.support.machines.real_nodes import require_nodes

PLACE = "/work"


@pytest.fixture(autouse=True)
def nodes() -> None:
    require_nodes()


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    folder = tmp_path / "volume"
    folder.mkdir()
    os.chown(folder, 1000, 1000)
    return folder


def script(volume: Path, text: str, secrets: dict[str, Path] | None = None) -> PodSpec:
    root = volume.with_name("root")
    (root / "etc").mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        if Path("/", name).is_symlink():
            (root / name).symlink_to(f"usr/{name}")
    shown = {"/usr": Path("/usr"), **(secrets or {})}
    return PodSpec(root, ["sh", "-c", text], {"GREETING": "hello"}, {PLACE: volume}, shown, folder=PLACE)


def test_it_is_restricted(volume: Path) -> None:
    """PID 1, uid 1000, no capabilities nor a way to one, a read-only root, its own environment, no other processes."""
    text = """
    echo "$$ $(id -u):$(id -g) $(id -G)" >facts
    grep -E '^(CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs)' /proc/self/status >status
    if touch /written 2>/dev/null; then echo "the root can be written" >>facts; fi
    env | sort >environment
    ls /proc | grep -c '^[0-9]' >processes
    touch /tmp/scratch && exit 7
    """
    with Pod(script(volume, text)) as pod:
        assert pod.wait(20) == 7
    assert (volume / "facts").read_text() == "1 1000:1000 1000\n"
    assert {line.split()[1].lstrip("0") for line in (volume / "status").read_text().splitlines()[:4]} == {""}
    assert "NoNewPrivs:\t1" in (volume / "status").read_text()
    names = {line.partition("=")[0] for line in (volume / "environment").read_text().splitlines()}
    assert {"PATH", "GREETING"} <= names <= {"PATH", "GREETING", "PWD", "SHLVL", "OLDPWD", "_"}
    assert int((volume / "processes").read_text()) <= 4
    assert (volume / "facts").stat().st_uid == 1000


def test_a_stop_signal_reaches_its_program(volume: Path, wait_until: Callable[..., None]) -> None:
    """The exit code is that of the program, and a command can be run in the pod meanwhile."""
    waits = "trap 'exit 3' TERM; echo >started; while true; do sleep 1000 & wait; done"
    with Pod(script(volume, waits)) as pod:
        wait_until((volume / "started").exists, what="the program to start")
        done = pod.execute(["sh", "-c", f"id -u; echo $GREETING; ls {PLACE}"])
        assert done.stdout.split() == ["1000", "hello", "started"]
        pod.terminate()
        assert pod.wait(20) == 3
    with pytest.raises(RunError, match="does not run"):
        _ = pod.pid


def test_a_killed_pod_leaves_no_process(volume: Path, wait_until: Callable[..., None]) -> None:
    """What PID 1 started goes with it, however it is killed; and so does all when the runner is killed."""
    waits = "sleep 1000 & echo >started; wait"
    spec = script(volume, waits)
    for kill in (Pod.kill, lambda pod: pod.process.kill()):
        (volume / "started").unlink(missing_ok=True)
        with Pod(spec) as pod:
            wait_until((volume / "started").exists, what="the program to start")
            first = pod.pid
            (other,) = Path(f"/proc/{first}/task/{first}/children").read_text().split()
            kill(pod)
            assert pod.process.wait() in {128 + signal.SIGKILL, -signal.SIGKILL}
            wait_until(lambda: is_gone(first) and is_gone(int(other)), what="the processes to end")  # noqa: B023


def is_gone(pid: int) -> bool:
    """Whether a process has ended; PID 1 of this machine may not have reaped it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_secrets_are_read_only(volume: Path, tmp_path: Path) -> None:
    """And stay files of their owner."""
    secret = tmp_path / "secret"
    secret.write_text("shared\n")
    text = "cat /run/secrets/word; echo changed >/run/secrets/word || exit 4"
    with Pod(
        script(volume, text, {"/run/secrets/word": secret}), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as pod:
        assert pod.wait(20) == 4
        assert pod.process.stdout is not None
        assert pod.process.stdout.read() == b"shared\n"
    assert secret.read_text() == "shared\n"


def test_it_is_in_the_network_of_its_node(volume: Path, tmp_path: Path) -> None:
    """It has the address of the node, knows the names of the others, and goes when the power of its node goes."""
    (tmp_path / "disks").mkdir()
    with network(2, names=["left", "right"], folder=tmp_path / "disks") as (left, _right):
        text = "hostname >names; ip -4 -o addr show eth0 >address; getent hosts right >>names; echo >done; sleep 1000"
        with Pod(script(volume, text), left) as pod:
            deadline_s = time.monotonic() + 20
            while not (volume / "done").exists():
                assert time.monotonic() < deadline_s
                assert pod.process.poll() is None
                time.sleep(0.01)
            assert f" {left.address}/24 " in (volume / "address").read_text()
            assert (volume / "names").read_text().split()[0] == "left"
            assert (volume / "names").read_text().split()[-1] == "right"
            first = pod.pid
            left.kill()
            assert is_gone(first)


def test_what_cannot_be_mounted_is_said(tmp_path: Path) -> None:
    """With the place and the reason."""
    (tmp_path / "etc").mkdir()
    spec = PodSpec(tmp_path, ["true"], secrets={"/run/key": tmp_path / "missing"})
    with Pod(spec, stderr=subprocess.PIPE) as pod:
        assert pod.process.wait(20) == 125
        assert pod.process.stderr is not None
        assert b"The container could not be made: " in pod.process.stderr.read()
