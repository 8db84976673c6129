"""An installation for drills: it starts the pods of the manifests on nodes of this machine, and names its services.

It does of Kubernetes what a pod's life needs: volumes that move with a pod, probes, the order of an end, and the
addresses behind a name. It schedules nothing by itself, enforces no network policy, and has no API.
"""

import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from loadbalancer.binaries import find_redis
from ops.containers.pod import PodSpec
from ops.kubernetes.manifests import FOLDER, Manifests, parse, render
from ops.kubernetes.pod_template import PodTemplate, pod_template
from ops.kubernetes.running_pod import RunningPod
from ops.kubernetes.volume_store import VolumeStore
from ops.nodes.node import Node
from service.errors import RunError

_CODE: Final = Path(__file__).resolve().parents[2]
_HOSTS_BYTES: Final = 4096
_SHOWN_KEY: Final = "The API key, shown only now: "


@dataclass(frozen=True)
class RootImage:
    """What containers run: an unpacked root file system, and what its entry point is.

    Args:
        root: The root file system.
        entry_point: The program and its first arguments.
        shown: Folders of this machine that are shown in it, read-only, at their own places.
        programs: What to run instead of programs that it lacks.
        environ: What the image itself sets.
    """

    root: Path
    entry_point: tuple[str, ...] = ("recollect",)
    shown: tuple[Path, ...] = ()
    programs: Mapping[str, str] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)

    def command(self, template: PodTemplate) -> tuple[str, ...]:
        """Return what a container of this image runs."""
        if not template.program:
            return (*self.entry_point, *template.arguments)
        name, *rest = template.program
        return (self.programs.get(name, name), *rest, *template.arguments)


def image_of_this_machine(folder: Path) -> RootImage:
    """Return a root file system, made in a folder, that shows the programs and the code of this process."""
    root = folder / "root"
    (root / "etc").mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        if Path("/", name).is_symlink():
            (root / name).symlink_to(f"usr/{name}")
    # All addresses of a name, as from a name server.
    (root / "etc" / "host.conf").write_text("multi on\n")
    # Where the image has it, for scripts of the manifests.
    program = root / "opt" / "recollect" / "bin" / "recollect"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m ops "$@"\n')
    program.chmod(0o755)
    shown = dict.fromkeys((Path("/usr"), Path(sys.base_prefix), Path(sys.prefix), _CODE))
    return RootImage(
        root,
        (sys.executable, "-m", "ops"),
        tuple(shown),
        programs={"valkey-server": str(find_redis(None).path)},
        environ={"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(_CODE)},
    )


def new_secrets() -> tuple[Manifests, str]:
    """Run secrets.sh; return the secrets and the API key that it shows.

    Raises:
        RunError: It failed.
    """
    given = {**os.environ, "RECOLLECT": f"{sys.executable} -m ops", "PYTHONPATH": str(_CODE)}
    done = subprocess.run([str(FOLDER / "secrets.sh")], env=given, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RunError(f"secrets.sh failed: {done.stderr.strip()}")
    (key,) = [line.removeprefix(_SHOWN_KEY) for line in done.stderr.splitlines() if line.startswith(_SHOWN_KEY)]
    return parse(done.stdout), key


class PodInstallation:
    """The pods of one installation; a context that kills those that are left.

    Args:
        overlay: The folder of the manifests.
        images: What containers run, by the names of images in the manifests; None for all others.
        nodes: Where pods may run, one pod on each: a pod has the address of its node.
        folder: Where volumes and output are.
    """

    def __init__(
        self, overlay: Path, images: Mapping[str | None, RootImage], nodes: Sequence[Node], folder: Path
    ) -> None:
        self.manifests = render(overlay)
        self.secrets, self.api_key = new_secrets()
        self.volumes = VolumeStore(folder / "volumes", self.manifests, self.secrets)
        self.pods: dict[str, RunningPod] = {}
        self._images = images
        self._idle = list(nodes)
        self._folder = folder
        self._hosts = folder / "hosts"
        self._hosts.write_bytes(b"\n" * _HOSTS_BYTES)
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        """Return it; no pod runs yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill every pod that is left."""
        for pod in list(self.pods.values()):
            self.kill(pod)

    def template(self, kind: str, name: str) -> PodTemplate:
        """Return the template of a workload's pods."""
        return pod_template(self.manifests, self.secrets, kind, name)

    def start(self, kind: str, name: str, number: int = 0, *, more: Sequence[str] = ()) -> RunningPod:
        """Start a pod on a node that has none: the pod of this number, with its volumes.

        Args:
            kind: The kind of its workload.
            name: The name of its workload.
            number: Its number.
            more: Arguments behind those of the manifest.

        Raises:
            RunError: No node is free, or its volume is attached elsewhere.
        """
        pod_name = f"{name}-{number}"
        if not self._idle:
            raise RunError("No node is free.")
        # The one that has been free for the longest: another one than a moment ago.
        node = self._idle[0]
        template = pod_template(self.manifests, self.secrets, kind, name, pod=pod_name, address=node.address)
        writable, readable = self.volumes.attach(template, pod_name)
        self._idle.remove(node)
        if not node.is_on:
            node.start()
        image = self._images.get(template.image, self._images[None])
        spec = PodSpec(
            image.root,
            (*image.command(template), *more),
            {**image.environ, **template.environ},
            writable,
            {**{str(path): path for path in image.shown}, **readable, "/etc/hosts": self._hosts},
            tmpfs=(),
            memory=template.memory,
            uid=template.uid,
            gid=template.gid,
            host_name=pod_name,
        )
        outputs = self._folder / "output"
        outputs.mkdir(exist_ok=True)
        pod = RunningPod(pod_name, template, spec, node, outputs / f"{pod_name}.out", self.write_names)
        self.pods[pod_name] = pod
        self.write_names()
        return pod

    def stop(self, pod: RunningPod) -> float:
        """Delete a pod in order; return the seconds until it had ended.

        Raises:
            RunError: It had to be killed, or did not end well.
        """
        try:
            return pod.stop()
        finally:
            self._forget(pod)

    def kill(self, pod: RunningPod) -> None:
        """Delete a pod by force."""
        pod.kill()
        self._forget(pod)

    def lose(self, pod: RunningPod) -> None:
        """Cut the power of a pod's node; its volume can be attached elsewhere then."""
        pod.lose()
        self._forget(pod)

    def wait(self, pod: RunningPod, timeout_s: float) -> int:
        """Wait for the end of a job's pod, and return its exit code."""
        code = pod.wait(timeout_s)
        self._forget(pod)
        return code

    def ready_addresses(self, service: str) -> list[str]:
        """Return the addresses of a service's pods that are ready and not about to end."""
        selector = self.manifests.named("Service", service)["spec"]["selector"]
        return [
            pod.node.address
            for pod in list(self.pods.values())
            if selector.items() <= pod.template.labels.items() and pod.is_ready and not pod.is_ending
        ]

    def write_names(self) -> None:
        """Write the names of services with the addresses behind them, as the cluster's DNS answers them now."""
        with self._lock:
            lines = ["127.0.0.1 localhost"]
            for service in self.manifests.of("Service"):
                selector, name = service["spec"]["selector"], service["metadata"]["name"]
                unready_too = service["spec"].get("publishNotReadyAddresses", False)
                lines += [
                    f"{pod.node.address} {name}"
                    for pod in list(self.pods.values())
                    if selector.items() <= pod.template.labels.items() and (pod.is_ready or unready_too)
                ]
            text = "\n".join(lines) + "\n"
            # One write of constant length: no reader sees half a file, and a mounted file cannot be replaced.
            with self._hosts.open("r+b") as file:
                file.write(text.encode().ljust(_HOSTS_BYTES, b"\n"))

    def _forget(self, pod: RunningPod) -> None:
        if self.pods.pop(pod.name, None) is None:
            return
        self.volumes.detach(pod.template, pod.name)
        self._idle.append(pod.node)
        self.write_names()
