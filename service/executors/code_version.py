"""The version of the code and of the packages that compute, in one text: where it is the same, results are, too."""

import hashlib
import importlib.metadata
import platform
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).resolve().parents[2]
# What a task may import.
_FOLDERS: Final = ("service", "telemetry")
_PACKAGES: Final = ("numpy", "scipy", "numba", "torch", "pyarrow")
_DIGITS: Final = 10


def code_version(root: Path = _ROOT, packages: Iterable[str] = _PACKAGES) -> str:
    """Return the version of Recollect and a digest of its code and of the packages that compute, as `0.4.0-1f2e3d4c5b`.

    Packages that are not installed count, too: a machine without PyTorch is unlike one that has it.
    """
    digest = hashlib.sha256(".".join(platform.python_version_tuple()[:2]).encode())
    for name in packages:
        version = "none"
        with suppress(importlib.metadata.PackageNotFoundError):
            version = importlib.metadata.version(name)
        digest.update(f"\0{name} {version}".encode())
    for path in sorted(path for folder in _FOLDERS for path in (root / folder).rglob("*.py")):
        digest.update(f"\0{path.relative_to(root)}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return f"{importlib.metadata.version('recollect')}-{digest.hexdigest()[:_DIGITS]}"


@cache
def own_version() -> str:
    """Return `code_version` as it was when this process first asked; it keeps the code that it has loaded."""
    return code_version()


def unlike(node: str, version: str, own: str) -> str:
    """Return the sentence on a machine that runs other code than that of the command."""
    return (
        f"{node} runs Recollect {version} and the machine of the command {own}: install the same version with the same "
        "packages on all machines (make setup, make cluster and, for networks, make deep), and start "
        "`recollect cluster` there again."
    )
