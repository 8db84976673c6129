"""A cluster of two machines: this one is the head, the other one is a network namespace. One start of Ray for all."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from ops.cluster.machine import interface_of
from ops.nodes.network import network
from ops.nodes.node import Node
from service.errors import DataError, RunError
from service.executors import ray_executor
from service.executors.code_version import own_version
from service.executors.executor import MOST_DEATHS, Executor, WorkerEvent, using
from service.executors.local_executor import LocalExecutor
from service.executors.machine import Machine
from service.executors.ray_connection import COMMAND_LABEL, VERSION_LABEL, labels_at
from service.executors.ray_executor import RayExecutor
from service.models.publication import publication
from service.training.algorithms import registry
from service.training.data import datasets
from service.training.interactions import no_progress
from tests.service.executors.test_run_group import met as met_and_killed
from tests.service.executors.test_run_group import refused as member_refused
from tests.support.executor_tasks import (
    begun_with_others,
    broken,
    halves,
    joined,
    killed_always,
    killed_once,
    refused,
    squared,
    squared_on_both,
    total,
    waiting_for_a_loss,
)
from tests.support.machines.real_nodes import require_nodes

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: make cluster")
PORT = 7391
SMALL = ("--workers", "1", "--store-mb", "100")


class Cluster(NamedTuple):
    """The cluster under test.

    Attributes:
        address: Of its head, which is on this machine.
        other: The other machine.
        visitor: A machine that is not a part of it.
        environ: For commands on this machine.
    """

    address: str
    other: Node
    visitor: Node
    environ: dict[str, str]
    join: Callable[[], None]


def started(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline().decode()
    if "cluster" not in line:
        process.kill()
        pytest.fail(line + process.communicate()[0].decode())
    return line


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    require_nodes()
    folder = tmp_path_factory.mktemp("cluster")
    environ = {**os.environ, "RECOLLECT_HOME": str(folder / "home"), "RECOLLECT_LOGS": str(folder / "logs")}
    recollect = [sys.executable, "-m", "ops", "cluster"]
    root = Path(__file__).resolve().parents[2]
    with network(2, names=["other", "visitor"], folder=folder) as (other, visitor):
        address = f"{other.host_address}:{PORT}"
        head = subprocess.Popen(
            [*recollect, "head", "--address", other.host_address, "--port", str(PORT), *SMALL],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

        joins: list[subprocess.Popen[bytes]] = []

        def join() -> None:
            there = {
                "RECOLLECT_HOME": str(other.folder / "home"),
                "RECOLLECT_CLUSTER_TOKEN_FILE": str(folder / "home/cluster/token"),
                "PYTHONPATH": str(root),
            }
            argv = [*recollect, "join", address, *SMALL]
            process = other.popen(argv, {**environ, **there}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            joins.append(process)
            assert "is a part of the cluster" in started(process)

        try:
            assert f"The head of the cluster is at {address}" in started(head)
            join()
            yield Cluster(address, other, visitor, environ, join)
        finally:
            # A part of a cluster would wait for its head to come back.
            for process in (*joins, head):
                process.terminate()
                process.communicate(timeout=60)


@pytest.fixture(scope="module")
def events() -> list[WorkerEvent]:
    return []


@pytest.fixture(scope="module")
def executor(cluster: Cluster, events: list[WorkerEvent]) -> Iterator[RayExecutor]:
    from ops.cluster.members import adopt_cluster_environment
    from service.config import from_env

    before = dict(os.environ)
    adopt_cluster_environment(from_env(cluster.environ))
    handler = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with RayExecutor(cluster.address, cluster.other.host_address, events.append) as made:
            yield made
        # Ray takes the handler away when it disconnects: a worker's machine would not leave in order.
        caught = Path("/proc/self/status").read_text().partition("SigCgt:\t")[2].split()[0]
        assert int(caught, 16) & 1 << (signal.SIGTERM - 1)
    finally:
        signal.signal(signal.SIGTERM, handler)
        os.environ.clear()
        os.environ.update(before)


def test_tasks_read_shared_values_and_results_keep_their_order(executor: RayExecutor) -> None:
    """Results are values of later tasks, alone and in lists, without passing through this process."""
    assert executor.n_workers == 2
    whole = np.arange(1000.0)
    table = executor.put(whole)
    parts = [(table, start, start + 100) for start in range(0, 1000, 100)]
    assert [executor.get(ref) for ref in executor.run(total, parts)] == [
        whole[s : s + 100].sum() for s in range(0, 1000, 100)
    ]
    squares = executor.run(squared, [(whole[:500],), (executor.put(whole[500:]),)])
    (again,) = executor.run(joined, [(squares,)])
    assert (executor.get(again) == whole**2).all()
    ((low, high, half),) = executor.run_split(halves, [(again,)], 3)
    assert executor.get(half) == 500
    (turned,) = executor.run(joined, [([high, low],)])
    assert (executor.get(turned) == np.roll(whole**2, 500)).all()
    with pytest.raises(RunError, match="A worker failed: ValueError: zip"):
        executor.run_split(halves, [(whole,)], 2)


def test_a_task_whose_worker_is_killed_is_done_again(
    executor: RayExecutor, events: list[WorkerEvent], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """And nothing but the events says so: standard output belongs to the command."""
    events.clear()
    ended = threading.Event()

    def let_them_go() -> None:
        while not ended.wait(0.01):
            for event in list(events):
                if event.state == "working":
                    (tmp_path / f"{event.task}.known").touch()

    thread = threading.Thread(target=let_them_go)
    thread.start()
    tasks = [(str(tmp_path / str(n)), n, str(tmp_path / f"{n}.known")) for n in range(4)]
    try:
        assert dict(executor.completed(killed_once, tasks, stage="fit")) == {n: (n, True) for n in range(4)}
    finally:
        ended.set()
        thread.join()
    assert sorted(str(event.task) for event in events if event.state == "died") == ["0", "1", "2", "3"]
    assert max(event.n_done for event in events) == 4
    assert capfd.readouterr() == ("", "")


def test_a_task_that_kills_its_workers_is_given_up(executor: RayExecutor) -> None:
    with pytest.raises(RunError, match=rf"ended {MOST_DEATHS} workers\. A process was killed"):
        executor.run(killed_always, [()], stage="fit")


def test_errors_of_tasks_are_raised(executor: RayExecutor) -> None:
    """Ours as they are, others with where they come from; the executor goes on."""
    with pytest.raises(DataError, match=r"^Row 3 is bad\.$"):
        executor.run(refused, [(3,), (3,)])
    with pytest.raises(RunError, match=r"ZeroDivisionError: division by zero \(in broken, line "):
        executor.run(broken, [()])
    assert executor.get(executor.run(total, [(np.ones(3), 0, 3)])[0]) == 3


@pytest.mark.parametrize(
    ("algorithm", "settings"), [("ials", {}), ("svd", {"n_groups": 3}), ("pure_svd", {}), ("next_item", {})]
)
def test_a_fit_gives_the_model_of_one_process(
    executor: RayExecutor, algorithm: str, settings: dict[str, int], tmp_path: Path
) -> None:
    """To the bit, whichever machine does which of its tasks; few ratings are one task of SVD, unless it has groups."""
    chosen = registry.get(algorithm)
    data = datasets.read("demo:200x150x4000")
    tables = []
    for executor_of_fit in (None, executor):
        with using(executor_of_fit):
            snapshot = chosen.fit(data, chosen.config(**settings), np.random.default_rng(5), no_progress)
        version = publication.publish(tmp_path, snapshot, data={"fingerprint": "sha256:0"}, measures={})
        manifest = json.loads((tmp_path / version / "manifest.json").read_text())
        tables.append({name: array["sha256"] for name, array in manifest["arrays"].items()})
    assert tables[0] == tables[1]


def test_commands_differ_by_one_option(cluster: Cluster, tmp_path: Path) -> None:
    """A training and a generation on the cluster publish and write what those of one process do.

    In the long form the generation is that of a machine without a part in the cluster, which it has while the command
    runs; that takes another start of Ray.
    """
    on_visitor = cluster.visitor.argv if os.environ.get("RECOLLECT_TEST_LONG") else list
    token = str(Path(cluster.environ["RECOLLECT_HOME"]) / "cluster/token")

    def made(home: str, *options: str) -> tuple[dict[str, str], list[str]]:
        environ = {**cluster.environ, "RECOLLECT_HOME": str(tmp_path / home), "RECOLLECT_CLUSTER_TOKEN_FILE": token}
        environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])

        def answer(on: Callable[[list[str]], list[str]], *argv: str) -> Any:
            program = on([sys.executable, "-m", "ops", *argv, "--json", *options])
            done = subprocess.run(program, env=environ, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout)

        trained = answer(list, "train", "--data", "demo:200x150x4000", "--algorithm", "pure_svd", "--force")
        generated = answer(on_visitor, "generate", "--n", "10", "--shard-users", "30")
        tables = {name: array["sha256"] for name, array in trained["arrays"].items()}
        return tables, [shard["sha256"] for shard in generated["shards"]]

    with ThreadPoolExecutor() as both:
        alone = both.submit(made, "alone")
        assert made("cluster", "--cluster", cluster.address) == alone.result()
    assert len(alone.result()[1]) == 7
    assert not cluster.visitor.processes()
    assert not (tmp_path / "cluster/cluster/run").exists()


def test_a_head_says_what_is_at_an_address(cluster: Cluster, executor: RayExecutor) -> None:
    """To any machine with the token: so a command knows whether its machine is a part of the cluster."""
    (labels,) = labels_at(cluster.address, cluster.other.address) or []
    assert labels[VERSION_LABEL] == own_version()
    assert COMMAND_LABEL not in labels
    assert labels_at(cluster.address, cluster.visitor.address) == []
    assert labels_at(f"{cluster.visitor.host_address}:1", cluster.visitor.address) is None


def test_a_group_that_loses_a_member_goes_on_from_what_it_kept(
    cluster: Cluster, executor: RayExecutor, events: list[WorkerEvent]
) -> None:
    """Its members are on both machines and reach each other; what the first one kept comes to this process."""
    events.clear()
    kept: list[bytes] = []
    steps: list[tuple[str, int, int]] = []
    total, _, _ = executor.run_group(
        *(met_and_killed, (executor.put(np.ones(10)), 1.0)),
        stage="fit",
        keep=kept.append,
        progress=lambda *step: steps.append(step),
    )
    assert (total, kept, steps) == (10, [b"half"], [("fit", 0, 3), ("fit", 1, 3)])
    assert len([event for event in events if event.state == "died"]) == 1
    assert {event.machine for event in events} == {
        Machine(socket.gethostname(), cluster.other.host_address),
        Machine("other", cluster.other.address),
    }


def test_the_error_of_any_member_is_raised(executor: RayExecutor) -> None:
    """At once, although the others would go on."""
    with pytest.raises(DataError, match=r"^The row is bad\.$"):
        executor.run_group(member_refused, ())


def test_networks_are_trained_over_the_network_between_machines(executor: RayExecutor, tmp_path: Path) -> None:
    """The exchange of gradients finds its way from machine to machine, and gives the bits of members on one machine."""
    pytest.importorskip("torch")
    from tests.support.networks.small_group import SmallConfig, fit_small, fitted_by_group

    def trained(on: Executor) -> Any:
        fits = [(fit_small, SmallConfig(n_epochs=2, patience=2), "demo:60x40x900")]
        ((state, _, _),) = on.run_group(fitted_by_group, (fits,), stage="fit")
        return state

    with LocalExecutor(2, tmp_path) as local, ThreadPoolExecutor() as both:
        here = both.submit(trained, local)
        assert trained(executor) == here.result()


def test_a_machine_that_joins_takes_tasks_if_it_has_the_code_of_the_command(
    cluster: Cluster, executor: RayExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a command that runs; five tasks at once are more than it gave to the workers that it found."""
    import ray

    from ops.cluster import ray_node
    from ops.cluster.ray_environment import node_environment

    token = Path(cluster.environ["RECOLLECT_HOME"]) / "cluster/token"
    options = ray_node.NodeOptions(cluster.other.host_address, cluster.address, 0, 3, 100_000_000)
    environ = node_environment(cluster.environ, token, interface_of(options.address))
    marks = tmp_path / "marks"
    marks.mkdir()

    def part(name: str) -> AbstractContextManager[Any]:
        return ray_node.running_node(options, environ, tmp_path / f"{name}.log", tmp_path / name)

    def nodes() -> set[str]:
        return {node["NodeID"] for node in ray.nodes() if node["Alive"]}

    monkeypatch.setattr(ray_executor, "_COUNT_EVERY_S", 0.1)
    before = nodes()
    with ThreadPoolExecutor() as beside, ExitStack() as stack:
        tasks = [(str(marks), task, 5) for task in range(5)]
        # If a machine does not join, no task waits for it.
        stack.callback(lambda: [(marks / f"{task}").write_text("") for task in range(5)])
        done = beside.submit(lambda: dict(executor.completed(begun_with_others, tasks)))
        with monkeypatch.context() as patched:
            patched.setattr(ray_node, "code_version", lambda: "0.1.0-1234")
            stack.enter_context(part("unlike"))
        unlike = nodes() - before
        stack.enter_context(part("alike"))
        alike = nodes() - before - unlike
        places = set(done.result().values())
    assert len(unlike) == len(alike) == 1
    assert alike < places
    assert not unlike & places
    assert not list(tmp_path.glob("*like"))


def test_a_lost_machine_takes_no_result_with_it(
    cluster: Cluster,
    executor: RayExecutor,
    events: list[WorkerEvent],
    tmp_path: Path,
    wait_until: Callable[..., None],
) -> None:
    """Results that were there are computed again from what this process has put, although it gave that up."""
    whole = np.arange(100_000.0)
    made, lost = tmp_path / "made", tmp_path / "lost"
    made.mkdir()
    lost.mkdir()
    here = socket.gethostname()
    table = executor.put(whole)
    results = executor.run(squared_on_both, [(table, str(made), task) for task in range(2)])
    executor.release([table])
    assert {path.read_text() for path in made.iterdir()} == {here, "other"}
    events.clear()

    def lose() -> None:
        wait_until(lambda: {path.read_text() for path in lost.iterdir()} == {here, "other"}, timeout_s=30.0)
        cluster.other.kill()
        (lost / "lost").touch()

    loss = threading.Thread(target=lose)
    loss.start()
    nodes = dict(executor.completed(waiting_for_a_loss, [(str(lost), task) for task in range(2)], stage="fit"))
    loss.join()
    assert nodes == {0: here, 1: here}
    assert [event.machine.name for event in events if event.state == "died"] == ["other"]
    assert all((executor.get(ref) == whole**2).all() for ref in results)
