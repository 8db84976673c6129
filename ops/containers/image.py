"""An image in buildah's storage: its settings, its files, and pods of it."""

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ops.containers.pod import PodSpec
from service.errors import RunError

_TIMEOUT_S: Final = 300.0


@dataclass(frozen=True)
class Image:
    """An image whose files are at hand.

    Args:
        root: Its root file system; several pods may share it, since they only read it.
        entrypoint: The program that arguments are given to.
        environ: Its environment.
        folder: Its working directory.
        uid: Its user.
        gid: Its group.
        volumes: Folders that it expects to be volumes.
        health_check: The command of its health check.
    """

    root: Path
    entrypoint: tuple[str, ...]
    environ: Mapping[str, str]
    folder: str
    uid: int
    gid: int
    volumes: tuple[str, ...]
    health_check: tuple[str, ...]

    def pod(
        self,
        arguments: Sequence[str],
        *,
        volumes: Mapping[str, Path],
        environ: Mapping[str, str] | None = None,
        secrets: Mapping[str, Path] | None = None,
        entrypoint: Sequence[str] | None = None,
        host_name: str = "",
    ) -> PodSpec:
        """Return what runs for some arguments, as a container runtime starts it; see `PodSpec` for the rest.

        Args:
            arguments: The arguments, such as a verb.
            volumes: Folders of this machine by their place in the pod.
            environ: Variables beside those of the image.
            secrets: Files of this machine that are read-only in the pod, by their place.
            entrypoint: Another program instead of the image's.
            host_name: The pod's host name.
        """
        return PodSpec(
            self.root,
            [*(self.entrypoint if entrypoint is None else entrypoint), *arguments],
            {**self.environ, **(environ or {})},
            volumes,
            secrets or {},
            uid=self.uid,
            gid=self.gid,
            folder=self.folder,
            host_name=host_name,
        )


def refusal() -> str | None:
    """Return why images cannot be built and run as pods here, in one sentence, or None if they can."""
    missing = [name for name in ("buildah", "debootstrap") if shutil.which(name) is None]
    if missing:
        return f"Images need {' and '.join(missing)} (on Debian: apt-get install {' '.join(missing)})."
    return None


@contextmanager
def unpacked(name: str) -> Iterator[Image]:
    """Unpack an image of buildah's storage; its files are gone at the end.

    Raises:
        RunError: There is no such image, or it cannot be unpacked.
    """
    container = _buildah("from", "--pull-never", name).strip()
    try:
        settings = json.loads(_buildah("inspect", container))["Docker"]["config"]
        yield _image(Path(_buildah("mount", container).strip()), settings)
    finally:
        _buildah("rm", container)


def _image(root: Path, settings: Mapping[str, Any]) -> Image:
    user, _, group = str(settings["User"] or "0").partition(":")
    return Image(
        root,
        tuple(settings["Entrypoint"] or ()),
        dict(variable.split("=", 1) for variable in settings["Env"] or ()),
        settings["WorkingDir"] or "/",
        int(user),
        int(group or user),
        tuple(settings["Volumes"] or ()),
        tuple((settings.get("Healthcheck") or {}).get("Test", ())[1:]),
    )


def _buildah(*arguments: str) -> str:
    done = subprocess.run(
        ["buildah", *arguments],  # noqa: S607 - where the machine has it
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMEOUT_S,
    )
    if done.returncode != 0:
        raise RunError(f"buildah {arguments[0]} failed: {done.stderr.strip()}.")
    return done.stdout
