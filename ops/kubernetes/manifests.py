"""The manifests of an installation as `kubectl kustomize` renders them."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.errors import RunError

# The folder that operators apply.
FOLDER = Path(__file__).resolve().parents[1] / "deploy" / "kubernetes"
# Where each kind that runs pods has the template of a pod.
_TEMPLATES = {
    "StatefulSet": ("spec", "template"),
    "Deployment": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}
_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Manifests:
    """Objects of Kubernetes, as their YAML has them."""

    objects: tuple[dict[str, Any], ...]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Return the objects of a kind."""
        return [one for one in self.objects if one["kind"] == kind]

    def named(self, kind: str, name: str) -> dict[str, Any]:
        """Return the object of a kind and a name; that of generated settings is given with or without its digest.

        Raises:
            RunError: There is not exactly one.
        """
        found = [
            one
            for one in self.of(kind)
            if one["metadata"]["name"] == name
            or (kind == "ConfigMap" and one["metadata"]["name"].rpartition("-")[0] == name)
        ]
        if len(found) != 1:
            raise RunError(f"The manifests have {len(found)} objects {kind}/{name} instead of one.")
        return found[0]

    def workloads(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Yield each object that runs pods, with its template of a pod (its metadata and spec)."""
        for one in self.objects:
            path = _TEMPLATES.get(one["kind"])
            if path is not None:
                template = one
                for name in path:
                    template = template[name]
                yield one, template


def customise(folder: Path, overlay: str, *components: str) -> Path:
    """Write a kustomization into a folder: an overlay with more components, as an operator's own one has them.

    Returns:
        The folder.
    """
    # kubectl refuses absolute paths.
    base = os.path.relpath(FOLDER, folder.resolve())
    lines = ["apiVersion: kustomize.config.k8s.io/v1beta1", "kind: Kustomization"]
    lines += ["resources:", f"  - {base}/overlays/{overlay}"]
    lines += ["components:", *(f"  - {base}/components/{name}" for name in components)] if components else []
    (folder / "kustomization.yaml").write_text("\n".join(lines) + "\n")
    return folder


def parse(text: str) -> Manifests:
    """Return the objects of a YAML stream."""
    # Not a dependency of the service, which never reads YAML.
    import yaml

    return Manifests(tuple(one for one in yaml.safe_load_all(text) if one))


def render(folder: Path) -> Manifests:
    """Render a folder with a kustomization.

    Raises:
        RunError: There is no kubectl, or it refuses the folder.
    """
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        raise RunError("Rendering manifests needs kubectl 1.27 or newer on PATH.")
    done = subprocess.run(
        [kubectl, "kustomize", str(folder)], capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
    )
    if done.returncode != 0:
        raise RunError(f"kubectl refuses {folder}: {done.stderr.strip()}")
    return parse(done.stdout)
