"""The images of the sources as they are now, built and unpacked for tests."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from ops.containers import image
from ops.containers.build_image import Build
from ops.containers.image import Image
from tests.support.machines.real_nodes import require_nodes

ROOT = Path(__file__).resolve().parents[3]
NAME = "localhost/recollect-test"
_STORAGE = "CONTAINERS_STORAGE_CONF"


def require_images() -> None:
    """Skip the test, with the reason, if this process cannot build and run images; in CI let it fail instead."""
    require_nodes()
    reason = image.refusal()
    if reason is not None and os.environ.get("CI") != "true":
        pytest.skip(reason)


class BuiltImages(NamedTuple):
    """The image that serves, and the one that trains, too."""

    serving: Image
    training: Image


@contextmanager
def built_images() -> Iterator[BuiltImages]:
    """Build the images from a copy of what the repository has, in a storage of its own, and unpack them.

    With RECOLLECT_TEST_IMAGE, the images of that name in the machine's storage are taken instead.
    """
    if name := os.environ.get("RECOLLECT_TEST_IMAGE"):
        with _unpacked(name) as images:
            yield images
        return
    # Not among pytest's folders, whose removal would stumble over mounts.
    folder = Path(tempfile.mkdtemp(prefix="recollect-image-"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(_STORAGE, str(_storage(folder)))
        try:
            _build(folder / "clone")
            with _unpacked(NAME) as images:
                yield images
        finally:
            _remove(folder)


@contextmanager
def _unpacked(name: str) -> Iterator[BuiltImages]:
    with image.unpacked(name) as serving, image.unpacked(Build(name).of_training().tag) as training:
        yield BuiltImages(serving, training)


def _build(clone: Path) -> None:
    _copy_of_the_repository(clone)
    command = [sys.executable, "-m", "ops.containers.build_image", "--base", "debootstrap", "--tag", NAME]
    done = subprocess.run(command, cwd=clone, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


def _storage(folder: Path) -> Path:
    """Write the settings of a storage of its own, so that the machine's is left alone."""
    path = folder / "storage.conf"
    # In a container, whose files are layers already, there may be no layers of layers.
    for driver in ("overlay", "vfs"):
        path.write_text(f'[storage]\ndriver = "{driver}"\ngraphroot = "{folder}/{driver}"\nrunroot = "{folder}/run"\n')
        if (
            subprocess.run(["buildah", "info"], env={**os.environ, _STORAGE: str(path)}, capture_output=True).returncode
            == 0
        ):
            break
    return path


def _remove(folder: Path) -> None:
    """Remove all images and containers of the storage, and its mounts."""
    subprocess.run(["buildah", "rm", "--all"], capture_output=True)
    for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
        place = line.split()[1]
        if place.startswith(f"{folder}/"):
            subprocess.run(["umount", place], capture_output=True)
    shutil.rmtree(folder, ignore_errors=True)


def _copy_of_the_repository(target: Path) -> None:
    """Copy what a clean clone would have, with changes that are not committed yet."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
