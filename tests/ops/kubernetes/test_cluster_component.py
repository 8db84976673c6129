"""The component `cluster`: its pods have what Ray needs, and jobs use them by one option."""

from pathlib import Path

import pytest

from ops.kubernetes.manifests import Manifests, customise, render
from ops.kubernetes.pod_installation import new_secrets
from ops.kubernetes.pod_template import pod_template, quantity
from tests.support.machines.programs import need_programs


@pytest.fixture(scope="module")
def secrets() -> Manifests:
    need_programs("kubectl")
    return new_secrets()[0]


def rendered(folder: Path, *components: str) -> Manifests:
    """Return the overlay of one node with components."""
    folder.mkdir()
    return render(customise(folder, "one-node", *components))


def test_a_worker_fits_into_its_pod(tmp_path: Path, secrets: Manifests) -> None:
    """As many workers as cores; what is in memory is less than the limit; a stop within 20 s is within the grace."""
    manifests = rendered(tmp_path / "cluster", "cluster")
    for name in ("head", "worker"):
        spec = manifests.named("Deployment", f"recollect-cluster-{name}")["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        pod = pod_template(manifests, secrets, "Deployment", f"recollect-cluster-{name}", address="10.1.2.3")
        assert sum(pod.memory.values()) < quantity(container["resources"]["limits"]["memory"]) / 2
        assert list(pod.memory) == ["/dev/shm"]
        assert pod.grace_s >= 30
        if name == "worker":
            assert pod.arguments[3:5] == ("--workers", container["resources"]["requests"]["cpu"])
            assert pod.readiness is not None
            assert pod.readiness.command[-1] == f"{pod.environ['RECOLLECT_HOME']}/cluster/run/part.json"
        else:
            assert pod.arguments == ("cluster", "head", "--address", "10.1.2.3", "--workers", "0")


def test_jobs_differ_by_one_option_on_the_cluster(tmp_path: Path, secrets: Manifests) -> None:
    """The cluster's address, which is that of the service of the head."""
    alone = rendered(tmp_path / "alone", "generation")
    cluster = rendered(tmp_path / "cluster", "generation", "cluster")
    (port,) = cluster.named("Service", "recollect-cluster")["spec"]["ports"]
    for job in ("training", "generation"):
        before, after = (pod_template(which, secrets, "CronJob", f"recollect-{job}") for which in (alone, cluster))
        assert after.arguments == (*before.arguments, "--cluster", f"recollect-cluster:{port['port']}")
        assert after.program == before.program
        assert set(before.mounts) < set(after.mounts)
        changed = {name for name, value in after.environ.items() if before.environ.get(name) != value}
        assert changed == {"RECOLLECT_CLUSTER_TOKEN_FILE"}
