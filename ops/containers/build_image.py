"""Builds the images with docker, podman or buildah, with pip's settings of this machine; standard library alone.

`make image` runs it: `python3 -m ops.containers.build_image`. No setting of pip gets into a layer: the build reads them
from secrets, and folders of this machine that they name are mounted.
"""

import argparse
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from ops.containers import base_image

ROOT: Final = Path(__file__).resolve().parents[2]
DOCKERFILE: Final = "ops/deploy/image/Dockerfile"
BUILDERS: Final = ("docker", "podman", "buildah")
TRAINING: Final = "training"
DEBOOTSTRAP: Final = "debootstrap"
BASE_NAME: Final = "localhost/recollect-base"
# Settings that decide nothing in the build. A constraint could only contradict the lock.
_LEFT_OUT: Final = ("cert", "constraint", "disable-pip-version-check", "no-input", "quiet", "verbose", "cache-dir")


class Build(NamedTuple):
    """What is built.

    Args:
        tag: The image's name.
        base: The base image, or None for that of the Dockerfile.
        extras: Extras of the project, separated by spaces; None for those of the Dockerfile.
        training_extras: The same of the extras that only an image that trains has.
        target: The stage of the Dockerfile; None for the image that serves.
    """

    tag: str = "recollect"
    base: str | None = None
    extras: str | None = None
    training_extras: str | None = None
    target: str | None = None

    def of_training(self) -> "Build":
        """Return the image that can train, too."""
        return self._replace(tag=f"{self.tag}-{TRAINING}", target=TRAINING)


def main() -> int:
    """Build both images, as the command line asks for."""
    parser = argparse.ArgumentParser(prog="make image", description="Build the images of Recollect.")
    parser.add_argument(
        "--tag", default=Build().tag, help=f"the name of the image that serves; the other has -{TRAINING} behind it"
    )
    parser.add_argument(
        "--base", help=f"the base image; {DEBOOTSTRAP} makes one (root, debootstrap and buildah); or a name"
    )
    parser.add_argument("--extras", help='extras of the project in both images, such as "embedded ann"')
    parser.add_argument("--training-extras", help='extras of the image that trains besides, such as "train deep"')
    parser.add_argument("--builder", choices=BUILDERS, help="the program to build with; else the first of them")
    given = parser.parse_args()
    builder = given.builder or next((name for name in BUILDERS if shutil.which(name)), None)
    if builder is None:
        parser.error(f"none of {', '.join(BUILDERS)} was found; on Debian: apt-get install buildah")
    base = given.base
    if base == DEBOOTSTRAP:
        builder = "buildah"
        base = own_base()
    serving = Build(given.tag, base, given.extras, given.training_extras)
    # The first has made all stages of the second but its last.
    return build(builder, serving) or build(builder, serving.of_training())


def own_base() -> str:
    """Return the base image of debootstrap, which is made if it is not there."""
    inspect = ["buildah", "inspect", "--type", "image", BASE_NAME]
    there = subprocess.run(inspect, capture_output=True, check=False)
    if there.returncode != 0:
        print(f"making the base image {BASE_NAME} with debootstrap; this may take a minute", flush=True)
        base_image.make(BASE_NAME)
    return BASE_NAME


def build(builder: str, wanted: Build) -> int:
    """Build an image; return the exit code of the builder, or 2 if it cannot build with these settings of pip."""
    settings = pip_settings(_pip_config_list())
    folders = local_folders(settings)
    if builder == "docker" and folders:
        sys.stderr.write(
            f"docker cannot mount {', '.join(map(str, folders))}, which pip's settings name, into a build: build"
            " with podman or buildah, or set PIP_CONFIG_FILE to settings whose index docker can reach.\n"
        )
        return 2
    with _secrets(settings) as secrets:
        return subprocess.run(argv(builder, wanted, secrets, folders), cwd=ROOT, check=False).returncode


def argv(builder: str, wanted: Build, secrets: Mapping[str, Path], folders: Sequence[Path]) -> list[str]:
    """Return the command that builds an image.

    Args:
        builder: One of `BUILDERS`.
        wanted: What is built.
        secrets: Files by the name that the Dockerfile has for them.
        folders: Folders that the build must see at the same place.
    """
    words = [builder, "build", "--file", DOCKERFILE, "--tag", wanted.tag]
    words += ["--target", wanted.target] if wanted.target is not None else []
    given = {"BASE": wanted.base, "EXTRAS": wanted.extras, "TRAINING_EXTRAS": wanted.training_extras}
    for name, value in given.items():
        words += ["--build-arg", f"{name}={value}"] if value is not None else []
    words += ["--label", f"org.opencontainers.image.version={_version()}"]
    for name, path in secrets.items():
        words += ["--secret", f"id={name},src={path}"]
    if builder != "docker":
        # Images of the other format have no health check.
        words += ["--format", "docker"]
        if builder == "buildah":
            # Otherwise it keeps no stage for the next build.
            words.append("--layers")
        for folder in folders:
            words += ["--volume", f"{folder}:{folder}:ro"]
        if shutil.which("crun") is None and shutil.which("runc") is None:
            words += ["--isolation", "chroot"]
    return [*words, "."]


def _version() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["version"])


def pip_settings(listed: str) -> dict[str, str]:
    """Return what `pip config list` prints as settings: the environment wins over a command's, a user's and the site's.

    Args:
        listed: Lines such as `global.index-url='https://…'`.
    """
    found: dict[str, str] = {}
    # pip lists a name once for each section, merged over its files; the environment is the section ":env:".
    order = {"global": 0, "install": 1, ":env:": 2}
    rows = [match.groups() for match in re.finditer(r"^([^.]+)\.([a-z-]+)='(.*?)'$", listed, re.MULTILINE | re.DOTALL)]
    for section, name, value in sorted(rows, key=lambda row: order.get(row[0], -1)):
        if section in order:
            found[name] = value.replace("\\n", "\n").strip()
    return found


def configuration(settings: Mapping[str, str]) -> str:
    """Return a configuration file of pip with the settings that count in a build."""
    lines = [f"{name} = {value}".replace("\n", "\n    ") for name, value in settings.items() if name not in _LEFT_OUT]
    return "\n".join(["[global]", *lines, ""])


def local_folders(settings: Mapping[str, str]) -> list[Path]:
    """Return the folders of this machine that the settings name as indexes or places of packages."""
    words = [word for name, value in settings.items() if name not in _LEFT_OUT for word in value.split()]
    paths = [Path(re.sub("^file://", "", word)) for word in words if re.match("(file://)?/", word)]
    # An index refers to files beside it, so its parent is mounted.
    folders = {path.parent if path.name == "simple" else path for path in paths if path.exists()}
    return sorted(folder for folder in folders if folder.is_dir())


def _pip_config_list() -> str:
    """Return what pip prints; the Python of a system may have no pip, and then the checkout's is asked."""
    for python in (sys.executable, str(ROOT / ".venv/bin/python")):
        with suppress(OSError, subprocess.CalledProcessError):
            command = [python, "-m", "pip", "config", "list"]
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return ""


@contextmanager
def _secrets(settings: Mapping[str, str]) -> Iterator[dict[str, Path]]:
    with tempfile.TemporaryDirectory(prefix="recollect-image-") as folder:
        path = Path(folder, "pip.conf")
        path.touch(mode=0o600)
        path.write_text(configuration(settings), encoding="utf-8")
        certificates = settings.get("cert")
        yield {"pip": path, **({"ca": Path(certificates)} if certificates else {})}


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        sys.stderr.write(f"{shlex.join(error.cmd)} failed with status {error.returncode}.\n")
        sys.exit(1)
