"""Names of published versions, `<algorithm>-<UTC time>-<4 hex digits>`, and the directory that holds them."""

import re
import secrets
from datetime import datetime
from pathlib import Path
from typing import Final

from service.errors import ModelMissing, ModelRefused

_NAME: Final = re.compile(r"[a-z0-9_]{1,32}-\d{8}T\d{6}-[0-9a-f]{4}")


def new_name(algorithm: str, created: datetime) -> str:
    """Return a name for a new version; `created` is in UTC."""
    return f"{algorithm}-{created:%Y%m%dT%H%M%S}-{_suffix()}"


def copy_name(models_dir: Path, version: str) -> str:
    """Return an unused name that sorts at the place of a version: same algorithm and time, other digits."""
    name = version
    while (models_dir / name).exists():
        name = f"{version.rpartition('-')[0]}-{_suffix()}"
    return name


def is_name(text: str) -> bool:
    """Whether a text has the form of a version's name."""
    return _NAME.fullmatch(text) is not None


def directory_of(models_dir: Path, version: str) -> Path:
    """Return the directory of a version that a person named, which need not exist.

    Raises:
        ModelMissing: The text is no name of a version, and must not become a path.
    """
    if not is_name(version):
        raise ModelMissing(f"There is no model {version!r} in {models_dir}.")
    return models_dir / version


def published(models_dir: Path) -> list[str]:
    """Return the published versions, oldest first.

    Raises:
        ModelRefused: The directory cannot be read.
    """
    try:
        if not models_dir.is_dir():
            return []
        found = [path.name for path in models_dir.iterdir() if is_name(path.name) and path.is_dir()]
    except OSError as error:
        raise ModelRefused(f"{models_dir} cannot be read: {error.strerror}.") from error
    return sorted(found, key=lambda name: (name.split("-")[-2], name))


def _suffix() -> str:
    return secrets.token_hex(2)
