"""run/topology.json: what runs in this home directory, one row per part.

Invariant: the file is always a whole list (replaced atomically), and it is there exactly while something runs or has
been killed without a chance to tidy up.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FILE_NAME = "topology.json"


@dataclass(frozen=True)
class Row:
    """One part of a running installation.

    Args:
        pid: The process, which leads a process group of its own; None while it is not running.
        host: Where the part listens, an address or the path of a Unix socket; None if it does not.
        port: Where the part listens; None if it does not, or on a socket.
        admin_port: Where it answers /healthz and, but for nginx, /readyz and /metrics; None if it does not.
        state: A phase of `loadbalancer.supervisor`.
        restarts: How often it was started again.
        waits_for: Why it is not ready, in its own words; empty if it has not said so.
        output: The file that is its standard output, by which its processes are recognised.
    """

    name: str
    pid: int | None
    host: str | None
    port: int | None
    admin_port: int | None
    state: str
    restarts: int
    output: str
    waits_for: str = ""


def path_in(home: Path) -> Path:
    """Return where the rows of an installation are kept."""
    return home / "run" / FILE_NAME


def write(home: Path, rows: Sequence[Row]) -> None:
    """Replace the rows atomically."""
    path = path_in(home)
    aside = path.with_suffix(".tmp")
    aside.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=1) + "\n")
    aside.replace(path)


def read(home: Path) -> list[Row]:
    """Return the rows, or none if nothing runs; an unreadable file counts as none, since its writer is not us."""
    try:
        raw = json.loads(path_in(home).read_text())
        return [Row(**row) for row in raw]
    except (OSError, ValueError, TypeError):
        return []


def front(home: Path) -> list[Row]:
    """Return the rows of the nginx that run now: what callers of this installation reach."""
    return [
        row for row in read(home) if row.name.startswith("nginx-") and row.pid and Path(f"/proc/{row.pid}").exists()
    ]


def remove(home: Path) -> None:
    """Remove the rows: nothing runs any more."""
    path_in(home).unlink(missing_ok=True)
