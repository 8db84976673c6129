"""The active version: `models/ACTIVE`, one line that names a whole directory and is replaced by a rename.

Invariant: a command that asks for the active model ends within its timeout, even where the file system hangs.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from service.errors import ModelMissing, ModelRefused
from service.models import artefact, published_files, versions
from service.models.snapshot import ModelSnapshot
from telemetry.daemon_thread import run_in_daemon_thread

ACTIVE: Final = "ACTIVE"
_LIMIT_BYTES: Final = 4096

T = TypeVar("T")


def version(models_dir: Path) -> str | None:
    """Return the version that ACTIVE names; None if there is no such file.

    Raises:
        ModelRefused: ACTIVE cannot be read, or does not hold the name of a version.
    """
    path = models_dir / ACTIVE
    try:
        name = published_files.read_regular(path, _LIMIT_BYTES).decode(errors="replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ModelRefused(f"{path} cannot be read: {error.strerror}.") from error
    if not versions.is_name(name):
        raise ModelRefused(f"{path} does not name a version: {name[:80]!r}.")
    return name


def replace(models_dir: Path, name: str) -> None:
    """Name another version in ACTIVE; for `published_files.exclusive` use."""
    published_files.replace(models_dir / ACTIVE, f"{name}\n".encode())


def load(models_dir: Path, timeout_s: float) -> ModelSnapshot:
    """Load the active version; call it where no event loop runs.

    Raises:
        ModelMissing: No version is active, or the version is gone.
        ModelRefused: The version fails its checks, or was not read in time.
    """

    def load_named() -> ModelSnapshot:
        name = version(models_dir)
        if name is None:
            raise ModelMissing(f"No model is active in {models_dir}.")
        return artefact.load(models_dir / name)

    return within_timeout(load_named, models_dir, timeout_s)


def within_timeout(work: Callable[[], T], models_dir: Path, timeout_s: float) -> T:
    """Run work on the model store in a thread, and abandon the thread after a timeout; call it outside an event loop.

    Raises:
        ModelRefused: The work took longer than `timeout_s`.
    """

    async def bounded() -> T:
        try:
            return await asyncio.wait_for(run_in_daemon_thread(work, "model-loader"), timeout_s)
        except TimeoutError:
            raise ModelRefused(f"The active model in {models_dir} was not read within {timeout_s:g} s.") from None

    return asyncio.run(bounded())
