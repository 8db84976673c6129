"""The drill of the component `cluster`: its pods train and generate together, and a worker's pod is killed meanwhile.

Invariant: what the jobs of the manifests make on the cluster is what they make without it, to the bit. A network is
compared with a training group of as many members on one machine.
"""

import json
import math
import random
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ops.cluster.loss_drill import at_work
from ops.kubernetes.life_drill import CONSUMER, REDIS, TRAINING
from ops.kubernetes.manifests import customise, render
from ops.kubernetes.pod_installation import PodInstallation, RootImage
from ops.kubernetes.pod_template import quantity
from ops.kubernetes.running_pod import RunningPod
from ops.nodes.node import Node
from service.errors import RunError
from service.models.files.versions import published
from service.training.data import datasets

HEAD: Final = ("Deployment", "recollect-cluster-head")
WORKER: Final = ("Deployment", "recollect-cluster-worker")
GENERATION: Final = ("CronJob", "recollect-generation")
N_WORKER_PODS: Final = 2
N_NODES: Final = 7
"""For Redis, the consumer, the head, two workers, a job, and one to be free."""

_JOB_S: Final = 1200.0
_READY_S: Final = 180.0
_POLL_EVERY_S: Final = 0.05
_GID: Final = 1000


@dataclass(frozen=True)
class JobFigures:
    """One job of the manifests.

    Attributes:
        work: What it did.
        alone_s: Its seconds without the cluster.
        cluster_s: Its seconds on the cluster.
        n_killed: The processes at work that ended with the killed pod; None if none was killed.
        is_equal: Whether both made the same.
    """

    work: str
    alone_s: float
    cluster_s: float
    n_killed: int | None
    is_equal: bool


@dataclass(frozen=True)
class Trial:
    """A training to compare.

    Attributes:
        algorithm: Its algorithm.
        settings: Arguments of the job in both places.
        alone: More arguments without the cluster, which make it comparable.
    """

    algorithm: str
    settings: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()


@dataclass
class ClusterDrill:
    """One drill.

    Args:
        images: What containers run, as for `PodInstallation`.
        nodes: Where pods may run.
        folder: Where state is.
        data: What to train on, as for `recollect train --data`.
        overlay: The overlay to which the components are added.
        notify: Called with a line about each step.
    """

    images: Mapping[str | None, RootImage]
    nodes: Sequence[Node]
    folder: Path
    data: str
    overlay: str
    notify: Callable[[str], None]

    def run(self, trials: Sequence[Trial]) -> list[JobFigures]:
        """Do each training without the cluster and on it, then generate with the last model, in the same way.

        Args:
            trials: The trainings, in this order.

        Raises:
            RunError: A pod does not do what the manifests say.
        """
        alone: dict[str, tuple[float, Any]] = {}
        with self._installation("alone", "generation") as installation:
            self._begin(installation)
            for trial in trials:
                alone[trial.algorithm] = self._trained(installation, trial, trial.alone)
                self.notify(f"train {trial.algorithm}: {alone[trial.algorithm][0]:.1f} s without the cluster.")
            alone["lists"] = self._generated(installation)
            self.notify(f"generate: {alone['lists'][0]:.1f} s without the cluster.")
        found = []
        with self._installation("cluster", "generation", "cluster") as installation:
            self._begin(installation)
            self._start_cluster(installation)
            for trial in trials:
                loss = _Loss(installation, self.notify)
                with loss:
                    cluster_s, made = self._trained(installation, trial, ())
                name = f"train {trial.algorithm}"
                alone_s, expected = alone[trial.algorithm]
                found.append(JobFigures(name, alone_s, cluster_s, loss.n_killed, made == expected))
                self.notify(f"{name}: {cluster_s:.1f} s on the cluster.")
                loss.successor().wait_ready(_READY_S)
            cluster_s, made = self._generated(installation)
            found.append(JobFigures("generate", alone["lists"][0], cluster_s, None, made == alone["lists"][1]))
            # Each before those that it needs.
            order = [workload for _, workload in (WORKER, HEAD, CONSUMER, REDIS)]
            for pod in sorted(installation.pods.values(), key=lambda pod: order.index(pod.template.workload)):
                self.notify(f"{pod.name} ended {installation.stop(pod):.1f} s after its deletion.")
        return found

    def n_workers(self) -> int:
        """Return the workers of the cluster: those of a pod of the manifests, for each pod."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            manifests = render(customise(Path(folder), self.overlay, "cluster"))
        (container,) = manifests.named(*WORKER)["spec"]["template"]["spec"]["containers"]
        return N_WORKER_PODS * math.ceil(quantity(container["resources"]["requests"]["cpu"]))

    def _installation(self, name: str, *components: str) -> PodInstallation:
        folder = self.folder / name
        folder.mkdir()
        overlay = folder / "overlay"
        overlay.mkdir()
        return PodInstallation(customise(overlay, self.overlay, *components), self.images, self.nodes, folder)

    def _begin(self, installation: PodInstallation) -> None:
        """Start Redis and the consumer, whose archive and live state the jobs read, and write data for the training."""
        for pod in [installation.start(*workload) for workload in (REDIS, CONSUMER)]:
            pod.wait_ready(_READY_S)
        data = datasets.read(self.data)
        lines = ["user,item,rating"]
        users, items = data.users.id_of, data.items.id_of
        columns = (data.user_rows.tolist(), data.item_rows.tolist(), data.ratings.tolist())
        lines += [f"{users[user]},{items[item]},{rating}" for user, item, rating in zip(*columns, strict=True)]
        (installation.volumes.claim("recollect-data", _GID) / "ratings.csv").write_text("\n".join(lines) + "\n")

    def _start_cluster(self, installation: PodInstallation) -> None:
        """Start the head and the workers, and ask a worker's pod for the cluster, as an operator does.

        Raises:
            RunError: Not all of them are in it.
        """
        pods = [installation.start(*WORKER, number) for number in range(N_WORKER_PODS)]
        # After its workers, as it may happen: they wait.
        pods.append(installation.start(*HEAD))
        for pod in pods:
            self.notify(f"{pod.name} is ready {pod.wait_ready(_READY_S):.1f} s after its start.")
        listed = pods[0].execute(["recollect", "cluster", "status", "--json"], _READY_S)
        nodes = json.loads(listed.stdout)["nodes"] if listed.returncode == 0 else []
        n_workers = sum(node["n_workers"] for node in nodes)
        if len(nodes) != len(pods) or n_workers != self.n_workers():
            raise RunError(f"The cluster is not whole: {listed.stdout}{listed.stderr}")
        self.notify(f"The cluster has {n_workers} workers in {len(nodes)} pods.")

    def _trained(self, installation: PodInstallation, trial: Trial, more: Sequence[str]) -> tuple[float, Any]:
        models = installation.volumes.claim("recollect-models", _GID)
        before = set(published(models))
        took_s = self._done(installation, TRAINING, ("--algorithm", trial.algorithm, "--force", *trial.settings, *more))
        (version,) = set(published(models)) - before
        manifest = json.loads((models / version / "manifest.json").read_text())
        return took_s, {name: array["sha256"] for name, array in manifest["arrays"].items()}

    def _generated(self, installation: PodInstallation) -> tuple[float, Any]:
        took_s = self._done(installation, GENERATION, ())
        (path,) = installation.volumes.claim("recollect-lists", _GID).glob("nightly/*/manifest.json")
        return took_s, [(shard["sha256"], shard["rows"]) for shard in json.loads(path.read_text())["shards"]]

    def _done(self, installation: PodInstallation, job: tuple[str, str], more: Sequence[str]) -> float:
        pod = installation.start(*job, more=more)
        began_s = time.monotonic()
        if (code := installation.wait(pod, _JOB_S)) != 0:
            raise RunError(f"{pod.name} ended with {code}: {pod.output.read_text()[-2000:]}")
        return time.monotonic() - began_s


class _Loss:
    """A context in which the pod of a worker is killed while it works, and another one takes its place.

    Args:
        installation: The pods.
        notify: Called with what happens.
    """

    def __init__(self, installation: PodInstallation, notify: Callable[[str], None]) -> None:
        self._installation = installation
        self._notify = notify
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._lose, name="loss", daemon=True)
        self._successor: RunningPod | None = None
        self.n_killed: int | None = None

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def successor(self) -> RunningPod:
        """Return the pod that took the place of the killed one.

        Raises:
            RunError: The job ended before a worker worked.
        """
        if self._successor is None:
            raise RunError("The job ended before a worker was killed: give it more data.")
        return self._successor

    def _lose(self) -> None:
        workers = [pod for pod in self._installation.pods.values() if pod.template.workload == WORKER[1]]
        while not self._over.is_set():
            for pod in workers:
                if at_work(pod.node):
                    # Not always at the beginning of a task.
                    time.sleep(random.uniform(0.0, 0.5))  # noqa: S311  # no secret
                    self._kill(pod)
                    return
            time.sleep(_POLL_EVERY_S)

    def _kill(self, pod: RunningPod) -> None:
        self.n_killed = len(at_work(pod.node))
        self._installation.kill(pod)
        self._notify(f"{pod.name} is killed, with {self.n_killed} workers at work.")
        number = 1 + max(int(name.rpartition("-")[2]) for name in self._installation.pods if name.startswith(WORKER[1]))
        self._successor = self._installation.start(*WORKER, max(number, N_WORKER_PODS))
