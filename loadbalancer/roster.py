"""The roster, run/topology.json: one row for each part of the installation.

Invariant: the file is a whole list, replaced atomically. It exists while the installation runs, and after its
supervisor was killed.
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
        pid: Its process, the leader of a process group; None while it does not run.
        host: The address or the path of the Unix socket that it listens on, or None.
        port: The port that it listens on, or None.
        admin_port: The port of /healthz and, except for nginx, of /readyz and /metrics; or None.
        state: A phase of `loadbalancer.supervision.supervisor`.
        restarts: How often it was restarted.
        waits_for: The reason that the part reports for not being ready; else empty.
        output: The file of its standard output, by which its processes are recognised.
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
    """Return the path of the roster of a home directory."""
    return home / "run" / FILE_NAME


def write(home: Path, rows: Sequence[Row]) -> None:
    """Replace the rows atomically."""
    path = path_in(home)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=1) + "\n")
    temporary.replace(path)


def read(home: Path) -> list[Row]:
    """Return the rows; none if nothing runs or the file is not a roster."""
    try:
        return [Row(**row) for row in json.loads(path_in(home).read_text())]
    except (OSError, ValueError, TypeError):
        return []


def is_replica(row: Row) -> bool:
    """Whether a part is a replica, of any role."""
    return row.name.startswith(("replica-", "candidates-"))


def running_balancers(home: Path) -> list[Row]:
    """Return the rows of the nginx that run."""
    return [
        row for row in read(home) if row.name.startswith("nginx-") and row.pid and Path(f"/proc/{row.pid}").exists()
    ]


def remove(home: Path) -> None:
    """Remove the rows."""
    path_in(home).unlink(missing_ok=True)
