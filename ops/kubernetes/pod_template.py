"""A pod as the manifests describe it; pure.

Invariant: every field of a container that has an effect on its life is read here or refused, so that the drill runs
what the manifests say and nothing else.
"""

import base64
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ops.kubernetes.manifests import Manifests
from service.errors import RunError

_POD_FIELDS: Final = {
    "serviceAccountName", "automountServiceAccountToken", "enableServiceLinks", "terminationGracePeriodSeconds",
    "securityContext", "containers", "volumes", "topologySpreadConstraints", "affinity", "restartPolicy",
}  # fmt: skip
_CONTAINER_FIELDS: Final = {
    "name", "image", "command", "args", "env", "envFrom", "ports", "startupProbe", "readinessProbe", "livenessProbe",
    "lifecycle", "securityContext", "resources", "volumeMounts",
}  # fmt: skip
_DEFAULT_GRACE_S: Final = 30
_JOB_NAME: Final = "metadata.labels['batch.kubernetes.io/job-name']"
_REFERENCE: Final = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)")
_QUANTITY: Final = re.compile(r"(\d+(?:\.\d+)?)(m|Ki|Mi|Gi)?")
_UNITS: Final = {None: 1.0, "m": 0.001, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30}


@dataclass(frozen=True)
class Probe:
    """A question to a container: whether a port accepts a connection, a path is answered or a command succeeds.

    Attributes:
        port: The port; None for a command.
        path: The path of a GET request; None for a connection alone.
        period_s: The time between two questions.
        timeout_s: How long an answer may take.
        failures: How many failures in a row count.
        command: What is run in the container; empty for a question to a port.
    """

    port: int | None
    path: str | None
    period_s: float
    timeout_s: float
    failures: int
    command: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mount:
    """A place in a container where a volume, or one file of it, is shown."""

    place: str
    volume: str
    read_only: bool
    file: str | None


@dataclass(frozen=True)
class PodTemplate:
    """The pods of one workload.

    Attributes:
        workload: The name of the StatefulSet, Deployment or CronJob.
        image: The name of the image, without its tag.
        labels: The labels of its pods.
        program: The command of the container; empty for the image's entry point.
        arguments: What follows the command.
        environ: The whole environment, values of secrets included.
        mounts: Where volumes are shown.
        volumes: By name, the source of a volume as the manifests have it, or `{"claim": NAME}` for a claim of the pod;
            without those in memory.
        memory: The places of volumes in memory, with their bytes.
        startup: The probe of the start; None without one.
        readiness: The probe of readiness; None without one.
        liveness: The probe of life; None without one.
        pause_s: The time between the deletion of the pod and SIGTERM.
        grace_s: The time between the deletion of the pod and SIGKILL.
        uid: The user of the container.
        gid: The group of the container, which owns the files of its volumes.
    """

    workload: str
    image: str
    labels: Mapping[str, str]
    program: tuple[str, ...]
    arguments: tuple[str, ...]
    environ: Mapping[str, str]
    mounts: tuple[Mount, ...]
    volumes: Mapping[str, Mapping[str, Any]]
    memory: Mapping[str, int]
    startup: Probe | None
    readiness: Probe | None
    liveness: Probe | None
    pause_s: float
    grace_s: float
    uid: int
    gid: int


def pod_template(
    manifests: Manifests, secrets: Manifests, kind: str, name: str, *, pod: str = "", address: str = ""
) -> PodTemplate:
    """Read the template of a workload's pods.

    Args:
        manifests: The rendered manifests.
        secrets: The objects of the secrets that they refer to.
        kind: The kind of the workload.
        name: Its name.
        pod: The name of the pod, for what refers to it.
        address: The address of the pod, for what refers to it.

    Raises:
        RunError: An object is missing, or a field is not known here.
    """
    workload = manifests.named(kind, name)
    (template,) = [template for one, template in manifests.workloads() if one is workload]
    spec = template["spec"]
    (container,) = spec["containers"]
    unknown = (set(spec) - _POD_FIELDS) | (set(container) - _CONTAINER_FIELDS)
    if unknown:
        raise RunError(f"The pods of {name} have fields that the drill does not know: {', '.join(sorted(unknown))}.")
    context = spec["securityContext"]
    if (context["runAsGroup"], context["runAsNonRoot"]) != (context["fsGroup"], True):
        raise RunError(f"The pods of {name} do not run as a user that has the group of its volumes.")
    claims = {one["metadata"]["name"] for one in workload["spec"].get("volumeClaimTemplates", ())}
    ports = {port["name"]: port["containerPort"] for port in container.get("ports", ())}
    environ = _environ(container, manifests, secrets, {"status.podIP": address, _JOB_NAME: pod})
    in_memory = {
        volume["name"]: quantity(volume["emptyDir"]["sizeLimit"])
        for volume in spec["volumes"]
        if volume.get("emptyDir", {}).get("medium") == "Memory"
    }
    pause = container.get("lifecycle", {}).get("preStop", {"sleep": {"seconds": 0}})
    return PodTemplate(
        workload=name,
        image=container["image"].rpartition(":")[0] or container["image"],
        labels=template["metadata"]["labels"],
        program=_expanded(container.get("command", ()), environ),
        arguments=_expanded(container.get("args", ()), environ),
        environ=environ,
        mounts=tuple(
            Mount(one["mountPath"], one["name"], one.get("readOnly", False), one.get("subPath"))
            for one in container["volumeMounts"]
            if one["name"] not in in_memory
        ),
        volumes={
            **{volume["name"]: volume for volume in spec["volumes"] if volume["name"] not in in_memory},
            **{name: {"claim": name} for name in claims},
        },
        memory={
            one["mountPath"]: math.ceil(in_memory[one["name"]])
            for one in container["volumeMounts"]
            if one["name"] in in_memory
        },
        startup=_probe(container.get("startupProbe"), ports),
        readiness=_probe(container.get("readinessProbe"), ports),
        liveness=_probe(container.get("livenessProbe"), ports),
        pause_s=float(pause["sleep"]["seconds"]),
        grace_s=float(spec.get("terminationGracePeriodSeconds", _DEFAULT_GRACE_S)),
        uid=context["runAsUser"],
        gid=context["runAsGroup"],
    )


def secret_files(secrets: Manifests, name: str) -> dict[str, bytes]:
    """Return the files of a secret by their names.

    Raises:
        RunError: There is no such secret.
    """
    return {key: base64.b64decode(value) for key, value in secrets.named("Secret", name)["data"].items()}


def quantity(text: str) -> float:
    """Return a quantity of Kubernetes, such as 500m or 2Gi, as a number.

    Raises:
        RunError: It has another form.
    """
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise RunError(f"The drill does not know the quantity {text!r}.")
    return float(match[1]) * _UNITS[match[2]]


def _expanded(words: Sequence[str], environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return words with the variables that they refer to; what refers to none is left, as by the kubelet."""
    return tuple(_REFERENCE.sub(lambda match: environ.get(match[1], match[0]), word) for word in words)


def _environ(
    container: Mapping[str, Any], manifests: Manifests, secrets: Manifests, fields: Mapping[str, str]
) -> dict[str, str]:
    found: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        found |= manifests.named("ConfigMap", source["configMapRef"]["name"])["data"]
    for variable in container.get("env", ()):
        if "value" in variable:
            found[variable["name"]] = variable["value"]
        elif "fieldRef" in variable["valueFrom"]:
            found[variable["name"]] = fields[variable["valueFrom"]["fieldRef"]["fieldPath"]]
        elif "resourceFieldRef" in variable["valueFrom"]:
            group, _, resource = variable["valueFrom"]["resourceFieldRef"]["resource"].partition(".")
            # Rounded up to whole cores or bytes, which is the default divisor.
            found[variable["name"]] = str(math.ceil(quantity(container["resources"][group][resource])))
        else:
            reference = variable["valueFrom"]["secretKeyRef"]
            found[variable["name"]] = secret_files(secrets, reference["name"])[reference["key"]].decode()
    return found


def _probe(probe: Mapping[str, Any] | None, ports: Mapping[str, int]) -> Probe | None:
    if probe is None:
        return None
    action = probe.get("httpGet") or probe.get("tcpSocket") or {}
    # The defaults of Kubernetes.
    return Probe(
        port=ports[action["port"]] if action else None,
        path=action.get("path"),
        period_s=float(probe.get("periodSeconds", 10)),
        timeout_s=float(probe.get("timeoutSeconds", 1)),
        failures=probe.get("failureThreshold", 3),
        command=tuple(probe["exec"]["command"]) if "exec" in probe else (),
    )
