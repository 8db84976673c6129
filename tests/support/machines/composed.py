"""The services of the compose file as pods: their commands, environment, volumes and names, as the file has them."""

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ops.containers.image import Image
from ops.containers.pod import Pod, PodSpec
from ops.nodes.node import Node

FILE = Path(__file__).resolve().parents[3] / "ops/deploy/compose/compose.yaml"


def parsed(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the file with its variables replaced, as `${NAME:-default}` says."""
    text = re.sub(r"\$\{(\w+):-([^}]*)\}", lambda match: environ.get(match[1]) or match[2], FILE.read_text())
    assert "${" not in text
    found: dict[str, Any] = yaml.safe_load(text)
    return found


class Composed:
    """The project of the compose file.

    Args:
        images: What its services run, by the names that the file has for them.
        folder: Where its volumes are.
        data: The folder that is `/data` in the tools.
    """

    def __init__(self, images: Mapping[str, Image], folder: Path, data: Path) -> None:
        self._images = images
        self._folder = folder
        self.file = parsed({"DATA": str(data)})
        self.services: dict[str, dict[str, Any]] = self.file["services"]

    def spec(self, name: str, arguments: Sequence[str] = ()) -> PodSpec:
        """Return the pod of a service; the arguments replace its command, as those of `docker compose run` do."""
        service = self.services[name]
        assert service["user"] == "1000:1000"
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["tmpfs"] == ["/tmp"]
        writable: dict[str, Path] = {}
        readable: dict[str, Path] = {}
        for mount in service["volumes"]:
            source, target, *options = mount.split(":")
            binds = readable if options == ["ro"] else writable
            binds[target] = Path(source) if source.startswith("/") else self._volume(name, source, target)
        return self._image(name).pod(
            list(arguments) or service["command"],
            volumes=writable,
            secrets=readable,
            environ={key: str(value) for key, value in service.get("environment", {}).items()},
            entrypoint=service.get("entrypoint"),
            host_name=name,
        )

    def start(self, name: str, node: Node, arguments: Sequence[str] = (), **options: Any) -> Pod:
        """Start a service on the machine with its name."""
        return Pod(self.spec(name, arguments), node, **options)

    def health_check(self, name: str) -> list[str]:
        """Return the command of a service's health check, the image's if it has none of its own."""
        test = self.services[name].get("healthcheck", {}).get("test")
        return list(self._image(name).health_check) if test is None else list(test[1:])

    def _image(self, name: str) -> Image:
        return self._images[self.services[name]["image"]]

    def _volume(self, service: str, name: str, target: str) -> Path:
        """Return the folder of a volume; a new one takes over what the image has at its place, owners included."""
        assert name in self.file["volumes"]
        folder = self._folder / name
        if not folder.exists():
            there = self._image(service).root / target.lstrip("/")
            shutil.copytree(there, folder, symlinks=True)
            for path in (folder, *folder.rglob("*")):
                os.chown(path, 1000, 1000)
        return folder
