"""The volumes of the pods of a drill, as folders of this machine with the owners and modes that Kubernetes gives them.

Invariant: a claim that one node may write at a time is shown to one pod at a time; what was written stays when the pod
goes.
"""

import os
import secrets as random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ops.kubernetes.manifests import Manifests
from ops.kubernetes.pod_template import PodTemplate, secret_files
from service.errors import RunError

_ROOT = 0


class VolumeStore:
    """The volumes of one installation.

    Args:
        folder: Where they are.
        manifests: The rendered manifests.
        secrets: The objects of the secrets.
    """

    def __init__(self, folder: Path, manifests: Manifests, secrets: Manifests) -> None:
        self._folder = folder
        self._manifests = manifests
        self._secrets = secrets
        self._holders: dict[str, str] = {}

    def claim(self, name: str, gid: int) -> Path:
        """Return the folder of a claim, which is made empty at first: root's, writable for a group (fsGroup)."""
        folder = self._folder / "claims" / name
        if not folder.exists():
            _make(folder, gid)
        return folder

    def attach(self, template: PodTemplate, pod: str) -> tuple[dict[str, Path], dict[str, Path]]:
        """Return what a new pod sees: by their places, what it may write and what it may only read.

        Raises:
            RunError: Another pod still holds a claim of this one, or a volume is of an unknown kind.
        """
        own = [f"{volume['claim']}-{pod}" for volume in template.volumes.values() if "claim" in volume]
        for claim in own:
            if claim in self._holders:
                raise RunError(f"The claim {claim} is still attached: its pod {self._holders[claim]} has not ended.")
        self._holders.update(dict.fromkeys(own, pod))
        run = f"{pod}-{random.token_hex(4)}"
        sources = {name: self._source(template, pod, run, volume) for name, volume in template.volumes.items()}
        writable: dict[str, Path] = {}
        readable: dict[str, Path] = {}
        for mount in template.mounts:
            source = sources[mount.volume]
            volume = template.volumes[mount.volume]
            read_only = mount.read_only or "secret" in volume or "configMap" in volume
            (readable if read_only else writable)[mount.place] = source if mount.file is None else source / mount.file
        # An outer place before the inner ones, which are shown within it.
        return _in_order(writable), _in_order(readable)

    def detach(self, template: PodTemplate, pod: str) -> None:
        """Free the claims of a pod that has ended."""
        for volume in template.volumes.values():
            if "claim" in volume:
                self._holders.pop(f"{volume['claim']}-{pod}", None)

    def _source(self, template: PodTemplate, pod: str, run: str, volume: Mapping[str, Any]) -> Path:
        if "claim" in volume:
            return self.claim(f"{volume['claim']}-{pod}", template.gid)
        if "persistentVolumeClaim" in volume:
            return self.claim(volume["persistentVolumeClaim"]["claimName"], template.gid)
        folder = self._folder / "pods" / run / str(volume["name"])
        if "emptyDir" in volume:
            _make(folder, template.gid)
        elif "secret" in volume:
            source = volume["secret"]
            files = secret_files(self._secrets, source["secretName"])
            if "items" in source:
                files = {item["path"]: files[item["key"]] for item in source["items"]}
            _write_linked(folder, files, source["defaultMode"], template.gid)
        elif "configMap" in volume:
            held = self._manifests.named("ConfigMap", volume["configMap"]["name"])["data"]
            _write_linked(folder, {name: text.encode() for name, text in held.items()}, 0o644, template.gid)
        else:
            raise RunError(f"The drill does not know the volume {volume['name']} of {template.workload}.")
        return folder


def _in_order(places: dict[str, Path]) -> dict[str, Path]:
    return dict(sorted(places.items()))


def _make(folder: Path, gid: int) -> None:
    folder.mkdir(parents=True)
    os.chown(folder, _ROOT, gid)
    # New files belong to the group, too.
    folder.chmod(0o2775)


def _write_linked(folder: Path, files: Mapping[str, bytes], mode: int, gid: int) -> None:
    """Write files as the kubelet does: they link to a folder of this version, which `..data` links to."""
    version = folder / "..2026_11_26"
    version.mkdir(parents=True)
    (folder / "..data").symlink_to(version.name)
    for name, content in files.items():
        path = version / name
        path.write_bytes(content)
        os.chown(path, _ROOT, gid)
        path.chmod(mode)
        (folder / name).symlink_to(f"..data/{name}")
