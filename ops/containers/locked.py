"""Chooses from a hash lock what some extras need, so that an image has nothing else; standard library alone.

Run by its path in the build of an image: `python3 ops/containers/locked.py embedded train >subset.lock`;
`--lock requirements-deep.lock embedded ann` chooses from another lock, and `--packages hatchling` packages instead of
extras of the project.

The lock says by whom each package is required ("via"), without the markers and extras by which: the choice may hold a
package more than needed, and never one less.
"""

import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]
_PROJECT = "recollect"


def main() -> None:
    """Print the part of a lock for the project and some extras, or for some packages."""
    words = sys.argv[1:]
    lock = "requirements.lock"
    if words[:1] == ["--lock"]:
        lock, words = words[1], words[2:]
    if words[:1] == ["--packages"]:
        wanted = {_normal(word) for word in words[1:]}
    else:
        wanted = required_names(tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"], words)
    sys.stdout.write(subset((_ROOT / lock).read_text(encoding="utf-8"), wanted))


def required_names(project: Mapping[str, Any], extras: Iterable[str]) -> set[str]:
    """Return the names of the packages that the project and some of its extras require directly.

    Args:
        project: The table `project` of pyproject.toml.
        extras: Names of extras.

    Raises:
        SystemExit: There is no such extra.
    """
    optional = project["optional-dependencies"]
    texts = list(project["dependencies"])
    for extra in extras:
        if extra not in optional:
            raise SystemExit(f"There is no extra {extra!r}; there are {', '.join(optional)}.")
        texts += optional[extra]
    return {_normal(re.split(r"[^A-Za-z0-9._-]", text, maxsplit=1)[0]) for text in texts}


def subset(lock: str, wanted: Iterable[str]) -> str:
    """Return the entries of a lock for some packages and for all that these require.

    Args:
        lock: The text of a lock with hashes and "via" comments.
        wanted: Normal names of the packages that are required directly.
    """
    # A package may have several entries, for different versions of Python.
    entries = [
        (_normal(entry.partition("==")[0]), entry)
        for entry in re.split(r"\n(?=[A-Za-z0-9])", lock.strip())
        if not entry.startswith("#")
    ]
    # What is wanted may be in no lock, as PyTorch, and what it requires in this one.
    kept = set(wanted)
    while added := {name for name, entry in entries if _requirers(entry) & kept} - kept:
        kept |= added
    return "".join(f"{entry}\n" for name, entry in entries if name in kept)


def _requirers(entry: str) -> set[str]:
    """Return who requires a package, the project left out, because it requires also what other extras need."""
    _, _, comment = entry.partition("# via")
    return {_normal(word) for word in re.findall(r"^\s*#?\s*([A-Za-z0-9._-]+)", comment, re.MULTILINE)} - {_PROJECT}


def _normal(name: str) -> str:
    """Return a package's normal name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


if __name__ == "__main__":
    main()
