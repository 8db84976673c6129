"""The images, built from a clean copy and run as restricted containers: read-only, uid 1000, without capabilities.

The build takes minutes, so this is `make image-check`. Pods of this machine's programs, without an image, are in
tests/ops/kubernetes/test_life_drill.py and tests/ops/containers/.
"""

import contextlib
import http.client
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ops.containers import slim
from ops.containers.image import Image
from ops.containers.pod import Pod
from ops.nodes.network import network
from service.errors import RunError
from tests.integration.installation import DATA
from tests.support.machines.built_image import BuiltImages, built_images, require_images
from tests.support.machines.composed import Composed

if not (os.environ.get("RECOLLECT_TEST_LONG") or os.environ.get("RECOLLECT_TEST_IMAGE")):
    pytest.skip("make image-check builds the images", allow_module_level=True)

# The first test waits for the build.
pytestmark = pytest.mark.timeout(600)

HOME = "/var/lib/recollect"
# What they may take on a disk; docs/containers.md has what is transferred.
LIMIT_BYTES = 400e6
TRAINING_LIMIT_BYTES = 740e6
DRAIN_S = 8.0


@pytest.fixture(scope="module")
def images() -> Iterator[BuiltImages]:
    require_images()
    with built_images() as built:
        yield built


@pytest.fixture
def image(images: BuiltImages) -> Image:
    return images.serving


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    os.chown(folder, 1000, 1000)
    return folder


def lines_until(pod: Pod, words: str) -> list[str]:
    """Return what the pod prints, up to a line with some words."""
    assert pod.process.stdout is not None
    printed = []
    while line := pod.process.stdout.readline().decode():
        printed.append(line)
        if words in line:
            return printed
    pytest.fail(f"it ended without printing {words!r}: {''.join(printed)}")


def started(image: Image, arguments: list[str], home: Path, **environ: str) -> Pod:
    spec = image.pod(arguments, volumes={HOME: home}, environ=environ)
    return Pod(spec, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def get(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_its_settings(image: Image) -> None:
    """A number as its user, one program, one writable folder, a health check; nothing of the machine that built it."""
    assert (image.uid, image.gid, image.entrypoint, image.volumes) == (1000, 1000, ("recollect",), (HOME,))
    assert image.health_check == ("recollect", "health")
    assert image.environ["RECOLLECT_HOME"] == HOME
    assert not [name for name in image.environ if name.startswith("PIP_")]
    found = [path for name in ("pip.conf", "pip") for path in (image.root / "etc").rglob(name)]
    assert not found
    assert not (image.root / "run/secrets").exists()
    owned = subprocess.run(["find", image.root, "-xdev", "-uid", "1000"], capture_output=True, text=True)
    assert all(path.startswith(f"{image.root}{HOME}") for path in owned.stdout.splitlines())


def test_their_sizes(images: BuiltImages) -> None:
    """Of what serves alone, and with training."""
    for image, limit_bytes in zip(images, (LIMIT_BYTES, TRAINING_LIMIT_BYTES), strict=True):
        assert slim.size_bytes(image.root) < limit_bytes
        site = next((image.root / "opt/recollect/lib").glob("python3*/site-packages"))
        assert not list(slim.unneeded(site))


def test_the_first_request_is_answered(image: Image, home: Path, free_port: Callable[[], int]) -> None:
    """As `make up` on a laptop: it has a model, starts all parts and answers; TERM stops all in order."""
    port = free_port()
    with started(image, ["up", "--port", str(port)], home) as pod:
        printed = "".join(lines_until(pod, "stop:"))
        assert "which came with this installation" in printed
        assert f"State in {HOME}, logs in {HOME}/logs." in printed
        assert "Running as root" not in printed
        (path,) = re.findall(r"curl http://127\.0\.0\.1:\d+(/\S+)", printed)
        status, body = get(port, path)
        assert status == 200
        assert re.fullmatch(rb"\d+(,\d+)*\n", body)
        served = json.loads(get(port, "/v1/model")[1])
        assert served["algorithm"] != "popularity"
        assert served["data"]["source"].startswith("demo:")
        assert pod.execute(list(image.health_check)).returncode == 0
        assert pod.execute(["recollect", "health", "--ready"]).returncode == 0
        doctor = json.loads(pod.execute(["recollect", "doctor", "--json"]).stdout)
        assert doctor["sound"] is True, doctor
        refused = pod.execute(["sh", "-c", "touch /opt/recollect/x || touch /usr/x || touch /etc/x"])
        assert refused.returncode != 0
        began_s = time.monotonic()
        pod.terminate()
        assert pod.wait(40) == 0
        assert time.monotonic() - began_s < 3 * DRAIN_S
    assert pod.process.stdout is None or pod.process.stdout.closed
    assert {path.stat().st_uid for path in home.rglob("*")} == {1000}


def test_a_replica_and_a_consumer_stop_within_their_drain_time(
    images: BuiltImages, home: Path, free_port: Callable[[], int], wait_until: Callable[..., None]
) -> None:
    """As PID 1 each: a served list is archived, an orphan of exec is reaped, and TERM ends them with 0."""
    image = images.serving
    redis_port, port, admin, consumer_admin = (free_port() for _ in range(4))
    url = f"redis://127.0.0.1:{redis_port}/0"
    (home / "redis").mkdir()
    os.chown(home / "redis", 1000, 1000)
    options = ["--port", str(redis_port), "--bind", "127.0.0.1", "--dir", f"{HOME}/redis", "--appendonly", "yes"]
    with Pod(
        image.pod(options, volumes={HOME: home}, entrypoint=["redis-server"]),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as redis:
        training = started(images.training, ["train", "--data", DATA], home)
        with training:
            assert training.wait(60) == 0
        # Its kernels were compiled with the image: at most a few are new, for types that this data alone has.
        assert len(list(home.rglob("*.nbc"))) < 5
        serve = ["serve", "--port", str(port), "--admin-port", str(admin)]
        consume = ["consume", "--admin-port", str(consumer_admin)]
        with (
            started(image, consume, home, RECOLLECT_REDIS_URL=url) as consumer,
            started(image, serve, home, RECOLLECT_REDIS_URL=url) as replica,
        ):
            lines_until(consumer, "Archiving to")
            lines_until(replica, "Serving at")
            assert get(port, "/v1/recommendations/1?n=5")[0] == 200
            for pod in (replica, consumer):
                assert pod.execute(list(image.health_check)).returncode == 0
                # An orphan: its parent, a shell of exec, has ended, so PID 1 inherits it.
                assert pod.execute(["sh", "-c", "(sleep 0.1 &) ; exit 0"]).returncode == 0
                wait_until(lambda: not zombies(pod), what="the orphan to be reaped")  # noqa: B023
            wait_until(lambda: list((home / "archive").rglob("*.jsonl")), what="the served list to be archived")
            for pod in (replica, consumer):
                began_s = time.monotonic()
                pod.terminate()
                assert pod.wait(30) == 0
                assert time.monotonic() - began_s < DRAIN_S + 2
        redis.terminate()
        assert redis.wait(30) == 0


def zombies(pod: Pod) -> list[str]:
    """Return the names of ended processes that wait for their parent in the pod."""
    script = 'for f in /proc/[0-9]*/stat; do read -r line <$f 2>/dev/null && echo "$line"; done'
    listed = pod.execute(["sh", "-c", script]).stdout.splitlines()
    ended = [line.partition(")")[0] for line in listed if line.rpartition(")")[2].split()[:1] == ["Z"]]
    return [*ended, *[line for line in listed if "(sleep)" in line]]


def test_the_services_of_the_compose_file_run(
    images: BuiltImages, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    """Each on a machine with its name: trained, keyed, served, one replica killed, every event archived, stopped."""
    folder = Path(tempfile.mkdtemp(prefix="recollect-compose-"))
    (tmp_path / "data").mkdir()
    by_name = {"recollect": images.serving, "recollect-training": images.training}
    project = Composed(by_name, folder / "volumes", tmp_path / "data")
    names = list(project.services)
    try:
        with contextlib.ExitStack() as stack:
            nodes = dict(zip(names, stack.enter_context(network(len(names), names=names)), strict=True))

            def start(name: str) -> Pod:
                with (folder / f"{name}.out").open("ab") as output:
                    pod = project.start(name, nodes[name], stdout=output, stderr=subprocess.STDOUT)
                return stack.enter_context(pod)

            def tool(*arguments: str) -> str:
                pod = project.start("recollect", nodes["recollect"], arguments, stdout=subprocess.PIPE)
                with pod:
                    printed, _ = pod.process.communicate(timeout=100)
                    assert pod.process.returncode == 0, printed
                return printed.decode()

            def is_healthy(name: str) -> bool:
                assert pods[name].process.poll() is None, (name, (folder / f"{name}.out").read_text())
                with contextlib.suppress(RunError):  # it has not begun yet
                    return pods[name].execute(project.health_check(name)).returncode == 0
                return False

            def ask(method: str, path: str, body: object = None, key: str = "") -> tuple[int, bytes]:
                connection = http.client.HTTPConnection(nodes["edge"].address, 8080, timeout=10)
                headers = {"Content-Type": "application/json", **({"X-API-Key": key} if key else {})}
                with contextlib.closing(connection):
                    connection.request(method, path, None if body is None else json.dumps(body), headers)
                    answer = connection.getresponse()
                    return answer.status, answer.read()

            pods = {"redis": start("redis")}
            wait_until(lambda: is_healthy("redis"), timeout_s=120, what="Redis")
            tool("train", "--data", DATA, "--algorithm", "popularity")
            (key,) = re.findall(r"\brk_\S+", tool("keys", "create", "--scope", "recommend,events"))
            for name in ("replica-0", "replica-1", "replica-2", "consumer", "edge"):
                pods[name] = start(name)
            wait_until(lambda: all(map(is_healthy, pods)), timeout_s=180, what="all services to be healthy")
            wait_until(lambda: ask("GET", "/readyz")[0] == 200, timeout_s=120, what="the edge to be ready")
            assert ask("GET", "/v1/recommendations/1?n=5")[0] == 401
            assert ask("GET", "/v1/recommendations/1?n=5", key=key)[0] == 200
            event = {"type": "rating", "user_id": "1", "item_id": "2", "value": 4}
            for number in range(40):
                if number == 10:
                    pods["replica-0"].kill()
                assert ask("POST", "/v1/events", {"events": [event]}, key)[0] == 202, number
                assert ask("GET", "/v1/recommendations/1?n=5", key=key)[0] == 200, number
            pods["replica-0"] = start("replica-0")
            wait_until(lambda: is_healthy("replica-0"), timeout_s=120, what="the replica to be back")
            for name in ("edge", "replica-0", "replica-1", "replica-2", "consumer"):
                pods[name].terminate()
                assert pods[name].wait(30) == 0, name
            receipt = json.loads(tool("audit", "--json"))
            assert receipt["ok"] is True
            assert receipt["archived"] == receipt["accepted"] >= 80
            pods["redis"].terminate()
            assert pods["redis"].wait(30) == 0
    finally:
        shutil.rmtree(folder)


def test_a_stop_is_a_stop_for_every_verb(images: BuiltImages, home: Path) -> None:
    """A command that handles no signal would, as PID 1, live until it is killed."""
    with started(images.training, ["train", "--data", "demo:3000x2000x400000"], home) as pod:
        lines_until(pod, "choose")
        pod.terminate()
        assert pod.wait(20) == 128 + 15


def test_a_listener_for_others_needs_keys(image: Image, home: Path) -> None:
    """Also in a container, whose port a runtime may publish."""
    with started(image, ["up"], home, RECOLLECT_BALANCER_HOST="0.0.0.0") as pod:
        assert pod.process.stdout is not None
        assert b"recollect keys create" in pod.process.stdout.read()
        assert pod.wait(20) == 2


def test_it_says_which_image_trains(image: Image, home: Path) -> None:
    """The one that serves has no compiler."""
    with started(image, ["train", "--data", DATA, "--algorithm", "ials"], home) as pod:
        assert pod.process.stdout is not None
        assert b"needs the package numba, which is not installed: install recollect[train]" in pod.process.stdout.read()
        assert pod.wait(20) == 2
