"""The active version: `models/ACTIVE`, one line that names a whole directory and is replaced by a rename.

A role may have an active version of its own, in `models/ACTIVE.candidates` or `models/ACTIVE.ranking`; without that
file it serves the version of ACTIVE.

Invariant: a command that asks for the active model ends within its timeout, even where the file system hangs.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from service.errors import ModelMissing, ModelRefused
from service.models.files import artefact, published_files, versions
from service.models.roles import SEPARATE, Role
from service.models.snapshot import ModelSnapshot
from telemetry.daemon_thread import run_in_daemon_thread

ACTIVE: Final = "ACTIVE"
_LIMIT_BYTES: Final = 4096

T = TypeVar("T")


def path_of(models_dir: Path, role: Role = "all") -> Path:
    """Return the file that names the active version of a role: its own if there is one, else ACTIVE."""
    if role != "all" and (own := models_dir / f"{ACTIVE}.{role}").exists():
        return own
    return models_dir / ACTIVE


def own_roles(models_dir: Path) -> list[Role]:
    """Return the roles with an active version of their own."""
    return [role for role in SEPARATE if path_of(models_dir, role).name != ACTIVE]


def version(models_dir: Path, role: Role = "all") -> str | None:
    """Return the active version of a role; None if there is none.

    Raises:
        ModelRefused: The file cannot be read, or does not hold the name of a version.
    """
    path = path_of(models_dir, role)
    try:
        name = published_files.read_regular(path, _LIMIT_BYTES).decode(errors="replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ModelRefused(f"{path} cannot be read: {error.strerror}.") from error
    if not versions.is_name(name):
        raise ModelRefused(f"{path} does not name a version: {name[:80]!r}.")
    return name


def replace(models_dir: Path, name: str, role: Role = "all") -> None:
    """Name another version in ACTIVE, or in the file of a role; for `published_files.exclusive` use."""
    file = ACTIVE if role == "all" else f"{ACTIVE}.{role}"
    published_files.replace(models_dir / file, f"{name}\n".encode())


def unite(models_dir: Path) -> None:
    """Remove the files of single roles, so that ACTIVE counts for all; for `published_files.exclusive` use."""
    for role in own_roles(models_dir):
        path_of(models_dir, role).unlink(missing_ok=True)


def load(models_dir: Path, timeout_s: float, role: Role = "all") -> ModelSnapshot:
    """Load the active version of a role; call it where no event loop runs.

    Raises:
        ModelMissing: No version is active, or the version is gone.
        ModelRefused: The version fails its checks, or was not read in time.
    """

    def load_named() -> ModelSnapshot:
        name = version(models_dir, role)
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
