"""Pods of the manifests under load: drained, killed, and moved with their volumes; and what they are read from."""

import re
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ops.containers.pod import PodSpec
from ops.kubernetes.__main__ import report, run
from ops.kubernetes.manifests import FOLDER, Manifests, render
from ops.kubernetes.pod_installation import image_of_this_machine, new_secrets
from ops.kubernetes.pod_template import PodTemplate, Probe, pod_template, quantity
from ops.kubernetes.running_pod import RunningPod
from ops.kubernetes.volume_store import VolumeStore
from ops.nodes.network import network
from ops.nodes.node import Node
from service.errors import RunError
from tests.support.machines.programs import need_programs
from tests.support.machines.real_nodes import require_nodes

KIND, NAME = "StatefulSet", "recollect-replica"


@pytest.fixture(scope="module")
def rendered() -> tuple[Manifests, Manifests]:
    need_programs("kubectl")
    return render(FOLDER / "overlays" / "one-node"), new_secrets()[0]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that other users than root may enter, as those of pytest are not."""
    require_nodes()
    with tempfile.TemporaryDirectory(prefix="recollect-pods-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_a_template_is_read_with_its_secrets_and_times(rendered: tuple[Manifests, Manifests]) -> None:
    """Settings, the addresses with passwords, probes with their ports, and the time of an end."""
    replica = pod_template(*rendered, KIND, NAME)
    assert (replica.program, replica.arguments) == ((), ("serve", "--slot", "0"))
    assert replica.environ["RECOLLECT_LOG_OUTPUT"] == "stderr"
    assert re.fullmatch(
        r"redis://recollect-replica:[0-9a-f]{48}@recollect-redis:6379/0", replica.environ["RECOLLECT_REDIS_URL"]
    )
    assert replica.readiness == Probe(port=8091, path="/readyz", period_s=2, timeout_s=2, failures=2)
    assert (replica.pause_s, replica.grace_s, replica.uid, replica.gid) == (0, 30, 1000, 1000)
    edge = pod_template(*rendered, "Deployment", "recollect-edge")
    assert edge.readiness == Probe(port=8080, path=None, period_s=2, timeout_s=1, failures=3)
    assert edge.pause_s == 5
    job = pod_template(*rendered, "CronJob", "recollect-training")
    assert job.memory == {}


def test_what_a_pod_knows_of_itself_is_read(rendered: tuple[Manifests, Manifests]) -> None:
    """Its address, its job, its cores, variables in arguments, volumes in memory, and a command as a probe."""
    manifests = render(FOLDER / "overlays" / "one-node")
    (container,) = manifests.named("CronJob", "recollect-training")["spec"]["jobTemplate"]["spec"]["template"]["spec"][
        "containers"
    ]
    fields = {"IP": "status.podIP", "JOB": "metadata.labels['batch.kubernetes.io/job-name']"}
    container["env"] = [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()]
    container["env"].append({"name": "CORES", "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu"}}})
    container["resources"]["requests"]["cpu"] = "1500m"
    container["args"] = ["$(IP):1", "$(CORES)", "$(UNKNOWN)"]
    container["readinessProbe"] = {"exec": {"command": ["true"]}}
    (tmp,) = [
        volume
        for volume in manifests.named("CronJob", "recollect-training")["spec"]["jobTemplate"]["spec"]["template"][
            "spec"
        ]["volumes"]
        if volume["name"] == "tmp"
    ]
    tmp["emptyDir"] = {"medium": "Memory", "sizeLimit": "64Mi"}
    pod = pod_template(manifests, rendered[1], "CronJob", "recollect-training", pod="a-1", address="10.0.0.9")
    assert pod.arguments == ("10.0.0.9:1", "2", "$(UNKNOWN)")
    assert pod.environ["JOB"] == "a-1"
    assert pod.memory == {"/tmp": 64 << 20}
    assert "tmp" not in pod.volumes
    assert pod.readiness == Probe(port=None, path=None, period_s=10, timeout_s=1, failures=3, command=("true",))
    with pytest.raises(RunError, match="does not know the quantity '1E'"):
        quantity("1E")


def test_a_field_that_the_drill_does_not_know_is_refused(rendered: tuple[Manifests, Manifests]) -> None:
    """Or it would run something else than the manifests say."""
    manifests = render(FOLDER / "overlays" / "one-node")
    manifests.named(KIND, NAME)["spec"]["template"]["spec"]["hostNetwork"] = True
    with pytest.raises(RunError, match="fields that the drill does not know: hostNetwork"):
        pod_template(manifests, rendered[1], KIND, NAME)


def test_volumes_have_the_owners_of_kubernetes(rendered: tuple[Manifests, Manifests], folder: Path) -> None:
    """Secrets are root's and the group's, claims are the group's, and one pod holds a claim at a time."""
    template = pod_template(*rendered, KIND, NAME)
    store = VolumeStore(folder, *rendered)
    writable, readable = store.attach(template, "recollect-replica-0")
    assert list(writable) == ["/tmp", "/var/lib/recollect"]
    assert {"/var/lib/recollect/models", "/var/lib/recollect/state"} < set(readable)
    secret = (readable["/etc/recollect/watermark-key"] / "watermark.key").stat()
    assert (secret.st_uid, secret.st_gid, stat.S_IMODE(secret.st_mode)) == (0, 1000, 0o440)
    home = writable["/var/lib/recollect"]
    assert (home.stat().st_uid, home.stat().st_gid, stat.S_IMODE(home.stat().st_mode)) == (0, 1000, 0o2775)
    with pytest.raises(RunError, match="claim home-recollect-replica-0 is still attached"):
        store.attach(template, "recollect-replica-0")
    (home / "kept").touch()
    (writable["/tmp"] / "gone").touch()
    store.detach(template, "recollect-replica-0")
    again, _ = store.attach(template, "recollect-replica-0")
    assert (again["/var/lib/recollect"] / "kept").exists()
    assert not (again["/tmp"] / "gone").exists()


@pytest.fixture
def node(folder: Path) -> Iterator[Node]:
    (folder / "nodes").mkdir()
    with network(1, folder=folder / "nodes") as (made,):
        yield made


def started(folder: Path, node: Node, text: str, **more: Any) -> RunningPod:
    """Start a pod that runs a script and has one probe."""
    image = image_of_this_machine(folder)
    values: dict[str, Any] = dict.fromkeys(PodTemplate.__dataclass_fields__)
    values |= {"startup": Probe(9000, None, 0.1, 1, 100), "pause_s": 0.0, "grace_s": 10.0, **more}
    spec = PodSpec(image.root, ["bash", "-c", text], {}, {}, {"/usr": Path("/usr")})
    return RunningPod("pod", PodTemplate(**values), spec, node, folder / "out", lambda: None)


LISTEN = "exec python3 -c 'import socket,time; s=socket.create_server((\"\",9000)); time.sleep(1000)'"


def test_a_pod_that_ends_too_late_is_killed(folder: Path, node: Node) -> None:
    """It ignores SIGTERM; the grace period ends it, and that is a finding."""
    pod = started(folder, node, "trap '' TERM; echo up; while true; do sleep 1000; done", startup=None, grace_s=0.3)
    while "up" not in pod.output.read_text():
        time.sleep(0.01)
    with pytest.raises(RunError, match=r"did not end within its grace period of 0\.3 s"):
        pod.stop()
    assert not pod.is_alive


def test_a_pod_that_ends_by_itself_is_not_waited_for(folder: Path, node: Node) -> None:
    """The error has its last words."""
    pod = started(folder, node, "echo 'The settings are wrong.'; exit 2")
    with pytest.raises(RunError, match=r"pod ended with 2: The settings are wrong\."):
        pod.wait_ready(20)


def test_a_command_is_a_probe(folder: Path, node: Node) -> None:
    """It runs in the pod, whose files it sees."""
    ready = Probe(None, None, 0.05, 5, 1, command=("cat", "/dev/shm/ready"))
    pod = started(folder, node, "sleep 0.1; echo 1 >/dev/shm/ready; exec sleep 1000", startup=None, readiness=ready)
    try:
        assert pod.wait_ready(20) >= 0.1
    finally:
        pod.kill()


def test_a_liveness_probe_that_fails_is_counted(folder: Path, node: Node, wait_until: Callable[..., None]) -> None:
    """A pod that stands still answers nothing, and is not ready any more."""
    probe = Probe(9000, None, 0.05, 0.5, 2)
    pod = started(folder, node, LISTEN, readiness=probe, liveness=Probe(9001, None, 0.05, 0.5, 2))
    try:
        pod.wait_ready(20)
        wait_until(lambda: pod.restarts > 0, what="the failure of the other probe")
        assert pod.is_ready
    finally:
        pod.kill()
    assert not pod.is_ready


def test_a_pods_life_loses_nothing(folder: Path) -> None:
    """The short form of `python -m ops.kubernetes life`: an end in order, a forced one, and the loss of a node."""
    need_programs("kubectl")
    result = run(folder, {None: image_of_this_machine(folder)}, "one-node", 100.0, ("drain", "kill", "lose a node"))
    text = report(result)
    assert result.is_kept, text
    assert result.findings.expected > 1000
    assert all(step.figures.requests > 100 for step in result.steps)
    # Events that were on the lost node's volume alone, or the step would show nothing.
    assert result.waiting is not None
    assert result.waiting > 0
    assert "0 requests failed with one retry." in text
