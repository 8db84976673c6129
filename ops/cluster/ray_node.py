"""The processes of Ray on this machine: a context in which they run.

Invariant: however it ends, none of them is left, nor their folders: one for sockets, one for values that memory does
not hold. They end with this process, too (PR_SET_PDEATHSIG); the values then stay until the next start removes them.
"""

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from loadbalancer.supervision import processes
from loadbalancer.supervision.processes import Child, Command
from service.errors import RunError
from service.executors.code_version import code_version
from service.executors.ray_connection import COMMAND_LABEL, VERSION_LABEL

_READY: Final = b"Ray runtime started."
_READY_TIMEOUT_S: Final = 120.0
_STOP_TIMEOUT_S: Final = 20.0
_POLL_EVERY_S: Final = 0.05
# sun_path of unix(7) holds 107 bytes; Ray appends /session_DATE_PID/sockets/plasma_store.
_LONGEST_FOLDER_BYTES: Final = 40


@dataclass(frozen=True)
class NodeOptions:
    """How a machine takes part in a cluster.

    Attributes:
        address: Its own address.
        head: HOST:PORT of the head; None if this machine is the head.
        port: The port of the head, if this machine is the head.
        n_workers: The workers here.
        store_bytes: The memory for values here; None for Ray's choice, three tenths of what is free.
        of_command: Whether the machine takes part for one command alone, which runs here.
    """

    address: str
    head: str | None
    port: int
    n_workers: int
    store_bytes: int | None
    of_command: bool = False


def start_argv(options: NodeOptions, folder: Path, values: Path) -> list[str]:
    """Return the command that runs Ray on this machine until it is ended.

    Args:
        options: How this machine takes part.
        folder: Where sockets are, with a short path.
        values: Where values are that memory does not hold.
    """
    # Beside the interpreter, because another Ray may be first in PATH.
    argv = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block"]
    if options.head is None:
        argv += ["--head", f"--port={options.port}", "--include-dashboard=false", "--no-monitor"]
    else:
        argv += [f"--address={options.head}"]
    labels = [f"{VERSION_LABEL}={code_version()}", *([f"{COMMAND_LABEL}=true"] if options.of_command else [])]
    argv += [
        f"--node-ip-address={options.address}",
        f"--num-cpus={options.n_workers}",
        f"--temp-dir={folder}",
        # Else beside the sockets: /tmp is often small, or is memory itself.
        f"--object-spilling-directory={values}",
        f"--labels={','.join(labels)}",
        "--include-log-monitor=false",
        "--disable-usage-stats",
        "--log-style=record",
        # Whatever port is free: a fixed range could be another program's.
        "--min-worker-port=0",
        "--max-worker-port=0",
    ]
    if options.store_bytes is not None:
        argv += [f"--object-store-memory={options.store_bytes}"]
    return argv


@contextmanager
def running_node(options: NodeOptions, environ: Mapping[str, str], output: Path, values: Path) -> Iterator[Child]:
    """Run Ray's processes; they are ready inside.

    Args:
        options: How this machine takes part.
        environ: Their whole environment.
        output: The file of what they print.
        values: The folder of values that memory does not hold, which no other machine uses; it is made here and removed
            at the end.

    Raises:
        RunError: They do not become ready, or there is no room for the folder.
    """
    output.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    output.unlink(missing_ok=True)
    folder = _private_folder()
    try:
        _make_empty(values)
        child = processes.spawn(Command(tuple(start_argv(options, folder, values)), environ, output))
        try:
            _wait_until_ready(child, output)
            yield child
        finally:
            _stop(child)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(values, ignore_errors=True)


def failure_in(text: str) -> str:
    """Return the sentence for a start that failed, from what Ray printed."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if any("uthentication" in line or "InvalidAuthToken" in line for line in lines):
        return "The head refuses the token of this machine: copy it from the machine of the head."
    if mismatch := next((line for line in lines if "ersion mismatch" in line), None):
        return f"The head runs another version of Ray or Python: {mismatch}"
    last = next((line for line in reversed(lines) if "Error" in line or "rror:" in line), lines[-1] if lines else "")
    return f"Ray could not be started on this machine: {last or 'it printed nothing'}"


def _private_folder() -> Path:
    for base in (None, "/tmp", "/var/tmp"):  # noqa: S108  # mkdtemp makes a private one
        folder = Path(tempfile.mkdtemp(prefix="recollect-", dir=base))
        if len(bytes(folder)) <= _LONGEST_FOLDER_BYTES:
            return folder
        folder.rmdir()
    raise RunError("There is no folder for temporary files with a path short enough for sockets.")


def _make_empty(folder: Path) -> None:
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700, parents=True)
    except OSError as error:
        raise RunError(f"{folder} cannot be made: {error.strerror}.") from None


def _wait_until_ready(child: Child, output: Path) -> None:
    deadline_s = time.monotonic() + _READY_TIMEOUT_S
    while _READY not in output.read_bytes():
        if child.exited():
            raise RunError(f"{failure_in(output.read_text(errors='replace')).rstrip('.')}. Its output is in {output}.")
        if time.monotonic() > deadline_s:
            raise RunError(f"Ray was not ready after {_READY_TIMEOUT_S:g} s; its output is in {output}.")
        time.sleep(_POLL_EVERY_S)


def _stop(child: Child) -> None:
    child.stop()
    deadline_s = time.monotonic() + _STOP_TIMEOUT_S
    while not child.exited() and time.monotonic() < deadline_s:
        time.sleep(_POLL_EVERY_S)
    child.reap()
