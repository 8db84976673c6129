"""Namespaces of Linux, each held open by one idle process, and the commands that make and enter them.

Invariant: the holder ends when its standard input is closed, and before that kills what runs in its namespace, so that
nothing stays behind if this process is killed. With its last process a namespace goes, and with a network namespace
every interface in it.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from service.errors import RunError

_PROGRAMS = ("ip", "unshare", "nsenter", "mount", "hostname")
_COMMAND_TIMEOUT_S = 30.0
# `sh` reads what to mount from its arguments, reports, and waits for the end of its input.
_HOLDER = """set -e
[ -z "$1" ] || hostname "$1"
shift
while [ $# -gt 0 ]; do mount --bind "$1" "$2"; shift 2; done
echo ready
read -r _ || :
found=1
while [ -n "$found" ]; do
  found=
  for process in /proc/[0-9]*; do
    pid=${process#/proc/}
    if [ "$pid" != $$ ] && [ "$process/ns/net" -ef /proc/$$/ns/net ] && kill -9 "$pid"; then found=1; fi
  done
done"""


def refusal() -> str | None:
    """Return why this process cannot make nodes, in one sentence, or None if it can."""
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"Nodes need {', '.join(missing)} (on Debian: apt-get install iproute2 util-linux mount hostname)."
    if os.geteuid() != 0:
        return "Nodes are network namespaces, and only root may make them."
    tried = subprocess.run(["unshare", "--net", "--mount", "--uts", "ip", "link"], capture_output=True, check=False)  # noqa: S607
    if tried.returncode != 0:
        return f"This machine allows no network namespaces: {tried.stderr.decode(errors='replace').strip()}."
    return None


def run(argv: Sequence[str]) -> str:
    """Run a short command and return its output.

    Raises:
        RunError: It failed.
    """
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=_COMMAND_TIMEOUT_S)
    if done.returncode != 0:
        raise RunError(f"{' '.join(argv)} failed: {done.stderr.strip() or done.stdout.strip()}.")
    return done.stdout


class Namespace:
    """A network namespace with mounts of its own and, if it has a name, a host name.

    Args:
        host_name: Its host name, or None to keep the machine's.
        binds: Pairs of a directory or file and the path where processes in the namespace see it.
    """

    def __init__(self, host_name: str | None = None, binds: Sequence[tuple[Path, Path]] = ()) -> None:
        paths = [str(path) for pair in binds for path in pair]
        argv = ["unshare", "--net", "--mount", "--uts", "sh", "-c", _HOLDER, "sh", host_name or ""]
        self._holder = subprocess.Popen(
            [*argv, *paths], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        if self._holder.stdout is None or self._holder.stdout.readline() != b"ready\n":
            _, reason = self._holder.communicate()
            raise RunError(f"A network namespace could not be made: {reason.decode(errors='replace').strip()}.")
        self.ip("link", "set", "lo", "up")

    @property
    def pid(self) -> int:
        """The process id of the holder: `/proc/PID/ns/net` is the network namespace."""
        return self._holder.pid

    def entering(self, argv: Sequence[str], folder: Path) -> list[str]:
        """Return the command that replaces itself by `argv`, in this namespace and in `folder`."""
        enter = ["nsenter", f"--target={self.pid}", "--net", "--mount", "--uts", "--"]
        # The mounts are entered at their root, so the working directory is set after that.
        return [*enter, "env", f"--chdir={folder}", "--", *argv]

    def ip(self, *arguments: str) -> None:
        """Run `ip` in the network namespace.

        Raises:
            RunError: It failed.
        """
        run(["nsenter", f"--target={self.pid}", "--net", "--", "ip", *arguments])

    def processes(self) -> list[int]:
        """Return the process ids of everything that runs in the network namespace, the holder left out."""
        own = Path(f"/proc/{self.pid}/ns/net").readlink()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != self.pid:
                try:
                    same = (entry / "ns" / "net").readlink() == own
                except OSError:
                    continue
                # A zombie has no namespace any more; its link cannot be read.
                if same:
                    found.append(int(entry.name))
        return found

    def close(self) -> None:
        """End the holder. Processes that still run in the namespace keep it alive."""
        if self._holder.stdin is not None:
            self._holder.stdin.close()
        self._holder.kill()
        self._holder.wait()
        for pipe in (self._holder.stdout, self._holder.stderr):
            if pipe is not None:
                pipe.close()
