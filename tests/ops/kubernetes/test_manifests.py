"""The manifests are valid for several versions of Kubernetes, restricted, and fit together."""

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from prometheus_client import generate_latest

from loadbalancer.settings import BalancerSettings
from ops.cluster.token_file import require_token
from ops.kubernetes.manifests import FOLDER, Manifests, customise, parse, render
from service.config import Config, from_env
from service.declared_settings import declared, read
from service.metrics import Metrics
from service.security.key_file import KeyFile
from telemetry.secret_file import read_key
from tests.ops.kubernetes.network_policies import admits
from tests.support.machines.programs import need_programs

ROOT = Path(__file__).resolve().parents[3]
# The oldest with `sleep` before a stop, one between, and the newest that the validator knows.
VERSIONS = ("1.30", "1.34", "1.37")
OVERLAYS = ("one-node", "many-nodes")
PARTS_OF_CLUSTER = ("cluster-head", "cluster-worker", "training", "generation")


def customised(folder: Path, overlay: str, *components: str) -> Manifests:
    """Return an overlay with more components, as an operator's own kustomization has them."""
    return render(customise(folder, overlay, *components))


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Manifests:
    """What secrets.sh prints."""
    need_programs("kubectl")
    environ = {**os.environ, "RECOLLECT": f"{sys.executable} -m ops", "PYTHONPATH": str(ROOT)}
    folder = tmp_path_factory.mktemp("secrets")
    done = subprocess.run(
        [str(FOLDER / "secrets.sh")], env={**environ, "TMPDIR": str(folder)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert list(folder.iterdir()) == []
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("The API key, shown only now: rk_")]
    assert line.split()[-1] not in done.stdout
    return parse(done.stdout)


@pytest.mark.parametrize("name", ["HUP", "INT", "TERM"])
def test_secrets_that_a_signal_ends_leave_no_password(tmp_path: Path, name: str) -> None:
    """The signal comes when all of them are in the temporary folder."""
    programs, folder = tmp_path / "programs", tmp_path / "folder"
    for place in (programs, folder):
        place.mkdir()
    kubectl = programs / "kubectl"
    kubectl.write_text(f'#!/bin/sh\nls "{folder}"/*/admin-password >"{tmp_path}/seen"\nkill -{name} $PPID\n')
    kubectl.chmod(0o755)
    environ = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "TMPDIR": str(folder), "RECOLLECT": "echo rk_"}
    # A test that runs in the background may ignore some of them, and a shell cannot take that back.
    words = ["env", "--default-signal=HUP,INT,TERM", str(FOLDER / "secrets.sh")]
    done = subprocess.run(words, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 128 + signal.Signals[f"SIG{name}"], done.stderr
    assert "admin-password" in (tmp_path / "seen").read_text()
    assert list(folder.iterdir()) == []


@pytest.fixture(scope="module", params=[("one-node",), ("many-nodes", "generation", "cluster", "tls")], ids="+".join)
def manifests(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Manifests:
    need_programs("kubectl")
    return customised(tmp_path_factory.mktemp("overlay"), *request.param)


@pytest.mark.parametrize(
    ("overlay", "components"),
    [
        *((overlay, ()) for overlay in OVERLAYS),
        ("many-nodes", ("generation", "cluster", "tls", "managed-redis", "autoscaling-open-requests")),
    ],
)
def test_the_schemas_of_kubernetes_accept_them(tmp_path: Path, overlay: str, components: tuple[str, ...]) -> None:
    """Strictly: a field that Kubernetes does not know is an error."""
    need_programs("kubectl")
    rendered = customised(tmp_path, overlay, *components)
    assert len(rendered.objects) > 15
    for one, version in itertools.product(rendered.objects, VERSIONS):
        kubernetes_validate.validate(one, version, strict=True)


def test_the_schemas_refuse_a_fault() -> None:
    """The check above is one."""
    need_programs("kubectl")
    replica = render(FOLDER / "base").named("StatefulSet", "recollect-replica")
    replica["spec"]["template"]["spec"]["containers"][0]["readinessProb"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readinessProb"):
        kubernetes_validate.validate(replica, VERSIONS[-1], strict=True)


def test_the_autoscaler_asks_for_a_metric_that_there_is(tmp_path: Path) -> None:
    """The rule of the adapter makes it of a series of the replicas."""
    need_programs("kubectl")
    rendered = customised(tmp_path, "many-nodes", "autoscaling-open-requests")
    (metric,) = rendered.named("HorizontalPodAutoscaler", "recollect-replica")["spec"]["metrics"]
    values = yaml.safe_load((FOLDER / "components/autoscaling-open-requests/prometheus-adapter.yaml").read_text())
    (rule,) = values["rules"]["custom"]
    assert rule["name"]["as"] == metric["pods"]["metric"]["name"]
    metrics = Metrics()
    metrics.route("/v1/recommendations/{user_id}").count_answer(200, 0.1)
    assert f"\n{rule['name']['matches']}{{" in generate_latest(metrics.registry).decode()


def test_pods_are_restricted(manifests: Manifests) -> None:
    """By the standard `restricted`, with a read-only root, without a token, without variables that a service sets."""
    assert (
        manifests.named("Namespace", "recollect")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        == "restricted"
    )
    assert manifests.named("ServiceAccount", "recollect")["automountServiceAccountToken"] is False
    seen = set()
    for workload, template in manifests.workloads():
        spec = template["spec"]
        seen.add(workload["metadata"]["name"])
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert (spec["automountServiceAccountToken"], spec["enableServiceLinks"]) == (False, False)
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert "memory" in container["resources"]["limits"]
            # A limit of processor time stops a replica in the middle of a list.
            assert "cpu" not in container["resources"]["limits"]
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
    parts = ("replica", "edge", "consumer", "redis", "training", "compaction")
    more = {"recollect-generation", "recollect-cluster-head", "recollect-cluster-worker"}
    assert seen - more == {f"recollect-{part}" for part in parts}
    assert seen & more in (set(), more)


def test_everything_is_in_the_namespace(manifests: Manifests) -> None:
    """Also what components add: policies and claims are of one namespace."""
    for one in manifests.objects:
        metadata = one["metadata"]
        assert metadata.get("namespace") == (None if one["kind"] == "Namespace" else "recollect"), metadata["name"]
        if one["kind"] != "Namespace":
            assert metadata["labels"]["app.kubernetes.io/name"] == "recollect"
    for _, template in manifests.workloads():
        assert template["metadata"]["labels"]["app.kubernetes.io/name"] == "recollect"


def test_everything_that_a_pod_names_is_there(manifests: Manifests, secrets: Manifests) -> None:
    """Secrets with their keys, settings, volumes, claims, accounts; secrets are readable for the pod's group only."""
    for workload, template in manifests.workloads():
        spec = template["spec"]
        templates = workload["spec"].get("volumeClaimTemplates", ())
        volumes = {volume["name"] for volume in spec["volumes"]} | {one["metadata"]["name"] for one in templates}
        assert spec["serviceAccountName"] == "recollect"
        for volume in spec["volumes"]:
            if "secret" in volume and volume["name"] != "tls":
                held = secrets.named("Secret", volume["secret"]["secretName"])["data"]
                assert {item["key"] for item in volume["secret"].get("items", ())} <= set(held)
                assert volume["secret"]["defaultMode"] == 0o440
            elif "configMap" in volume:
                assert manifests.named("ConfigMap", volume["configMap"]["name"])
            elif volume["name"] == "tls":
                # Made by cert-manager, or by the operator.
                assert volume["secret"]["secretName"] == "recollect-tls"
            elif "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in set(claims(manifests))
            else:
                assert "emptyDir" in volume
        for container in spec["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes
            for source in container.get("envFrom", ()):
                assert manifests.named("ConfigMap", source["configMapRef"]["name"])
            for variable in container.get("env", ()):
                if "secretKeyRef" in variable.get("valueFrom", ()):
                    reference = variable["valueFrom"]["secretKeyRef"]
                    assert reference["key"] in secrets.named("Secret", reference["name"])["data"]


def claims(manifests: Manifests) -> Iterator[str]:
    for one in manifests.of("PersistentVolumeClaim"):
        yield one["metadata"]["name"]
    for one in manifests.of("StatefulSet"):
        for template in one["spec"]["volumeClaimTemplates"]:
            for number in range(one["spec"].get("replicas", 3)):
                yield f"{template['metadata']['name']}-{one['metadata']['name']}-{number}"


def test_selectors_and_ports_find_their_pods(manifests: Manifests) -> None:
    """Each service, budget, policy, affinity and autoscaler selects pods of one workload, by a port that these have."""
    labels = {one["metadata"]["name"]: template["metadata"]["labels"] for one, template in manifests.workloads()}
    ports = {
        one["metadata"]["name"]: {port["name"]: port["containerPort"] for port in container.get("ports", ())}
        for one, template in manifests.workloads()
        for container in template["spec"]["containers"]
    }
    for service in manifests.of("Service"):
        (found,) = [name for name, held in labels.items() if service["spec"]["selector"].items() <= held.items()]
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= set(ports[found])
    for budget in manifests.of("PodDisruptionBudget"):
        wanted = budget["spec"]["selector"]["matchLabels"]
        assert [name for name, held in labels.items() if wanted.items() <= held.items()] == [budget["metadata"]["name"]]
    for scaler in manifests.of("HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        scaled = manifests.named(target["kind"], target["name"])
        assert "replicas" not in scaled["spec"]
        (container,) = scaled["spec"]["template"]["spec"]["containers"]
        (metric,) = scaler["spec"]["metrics"]
        assert metric["containerResource"]["container"] == container["name"]
    for workload, template in manifests.workloads():
        assert (
            workload["spec"].get("selector", {}).get("matchLabels", {}).items()
            <= template["metadata"]["labels"].items()
        )
        if "serviceName" in workload["spec"]:
            assert manifests.named("Service", workload["spec"]["serviceName"])
        for container in template["spec"]["containers"]:
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                action = container.get(probe, {})
                port = action.get("httpGet", action.get("tcpSocket", {})).get("port")
                assert port is None or port in ports[workload["metadata"]["name"]]
        affinity = template["spec"].get("affinity", {}).get("podAffinity", {})
        for term in affinity.get("requiredDuringSchedulingIgnoredDuringExecution", ()):
            wanted = term["labelSelector"]["matchLabels"]
            assert [name for name, held in labels.items() if wanted.items() <= held.items()] == ["recollect-consumer"]


def test_only_these_connections_are_allowed(manifests: Manifests) -> None:
    """By a small evaluator of network policies, for each pair of parts and each port that is listened on."""
    labels = {
        one["metadata"]["name"].removeprefix("recollect-"): template["metadata"]["labels"]
        for one, template in manifests.workloads()
    }
    # The last one is for those that Ray chooses.
    ports = (6379, 7379, 8080, 8081, 8091, 41234)
    parts = [name for name, held in labels.items() if held.get("recollect/cluster") == "part"]
    assert sorted(parts) in ([], sorted(PARTS_OF_CLUSTER))
    found = {
        (source, target, port)
        for source, target, port in itertools.product(labels, labels, ports)
        if admits(manifests, "Egress", labels[source], labels[target], "recollect", port)
        and admits(manifests, "Ingress", labels[target], labels[source], "recollect", port)
    }
    assert found == {
        ("edge", "replica", 8081),
        ("replica", "redis", 6379),
        ("consumer", "redis", 6379),
        *itertools.product(parts, parts, ports),
    }
    outside = {
        (source, target, port)
        for source, target, port in itertools.product(("monitoring", "default"), labels, ports)
        if admits(manifests, "Ingress", labels[target], {}, source, port)
    }
    assert outside == {
        ("default", "edge", 8080),
        ("monitoring", "edge", 8080),
        ("monitoring", "replica", 8091),
        ("monitoring", "consumer", 8091),
    }
    for pod in labels.values():
        assert admits(manifests, "Egress", pod, {"k8s-app": "kube-dns"}, "kube-system", 53)


def test_settings_are_those_of_the_service(manifests: Manifests) -> None:
    """Each variable is a declared setting with a value of its kind, and none of them is a port of a pod by chance."""
    known = {one.env for owner in (Config, BalancerSettings) for one in declared(owner)}
    for workload, template in manifests.workloads():
        for container in template["spec"]["containers"]:
            environ = environment(manifests, container)
            assert {name for name in environ if name.startswith("RECOLLECT_")} <= known
            if workload["metadata"]["name"] == "recollect-redis":
                continue
            config, settings = from_env(environ), read(BalancerSettings, environ)
            ports = {port["name"]: port["containerPort"] for port in container.get("ports", ())}
            listens = {"edge": {"http": settings.port}, "consumer": {"admin": 8091}}
            listens["head"] = {"head": 7379}
            listens["replica"] = {"http": config.server.port, "admin": config.server.admin_port}
            assert ports == listens.get(container["name"], {})


def environment(manifests: Manifests, container: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        found |= manifests.named("ConfigMap", source["configMapRef"]["name"])["data"]
    return found | {one["name"]: one.get("value", "redis://secret/0") for one in container.get("env", ())}


def test_a_pod_has_time_to_stop(manifests: Manifests) -> None:
    """The grace period is longer than the pause before the stop, the drain and the shipping of the last events."""
    settings = manifests.named("ConfigMap", "recollect-settings")["data"]
    drain_s = float(settings["RECOLLECT_DRAIN_TIMEOUT_S"])
    for name in ("StatefulSet/recollect-replica", "StatefulSet/recollect-consumer", "Deployment/recollect-edge"):
        spec = manifests.named(*name.split("/"))["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        pause_s = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        assert spec["terminationGracePeriodSeconds"] >= pause_s + drain_s + 10


def test_a_slot_outlives_its_pod(manifests: Manifests) -> None:
    """Volumes of slots and of the archive are kept, and are block devices that one node writes."""
    for name in ("recollect-replica", "recollect-consumer"):
        spec = manifests.named("StatefulSet", name)["spec"]
        assert spec["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
        (claim,) = spec["volumeClaimTemplates"]
        assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
        (container,) = spec["template"]["spec"]["containers"]
        assert {"name": "home", "mountPath": "/var/lib/recollect"} in container["volumeMounts"]


def test_the_secrets_can_be_used(secrets: Manifests, tmp_path: Path) -> None:
    """The keys are valid, the sealing key is long enough, and the two addresses of Redis have different users."""
    import base64

    held = {name: base64.b64decode(content) for one in secrets.objects for name, content in one["data"].items()}
    for name, content in held.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
    (key,) = KeyFile(tmp_path).read() or []
    assert key.scopes == ("recommend", "events", "items")
    assert len(read_key(tmp_path / "watermark.key", "watermark key")) == 64
    token = tmp_path / "token"
    assert require_token(from_env({"RECOLLECT_HOME": "/", "RECOLLECT_CLUSTER_TOKEN_FILE": str(token)})) == token
    users = {name: held[f"{name}-url"].decode().split("//")[1].split(":")[0] for name in ("replica", "consumer")}
    assert users == {"replica": "recollect-replica", "consumer": "recollect-consumer"}
    assert b"SHA256" not in held["users.acl"]
