"""A machine that systemd boots: namespaces of this one, whose files it shows and does not change (Linux, root).

Its systemd is the one of this machine, as PID 1; it has the network of this machine, and starts nothing by itself.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import pytest

from ops.nodes import namespace

ROOT = Path(__file__).resolve().parents[3]
SYSTEMD = Path("/lib/systemd/systemd")
_HIERARCHY = Path("/sys/fs/cgroup/systemd")
_BOOT_S = 30.0
# What a unit may not see (ProtectHome, PrivateTmp) must be elsewhere: the code, Python and its packages.
_SHOWN = {"/opt/code": ROOT, "/opt/python": Path(sys.base_prefix), "/opt/environment": Path(sys.prefix)}
_PROGRAM = f"""#!/bin/sh
export LD_LIBRARY_PATH=/opt/python/lib
export PYTHONPATH=/opt/code:/opt/environment/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages
exec /opt/python/bin/python3 -m ops "$@"
"""
_BOOT = r"""set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
cd "$1"
mkdir upper work root
mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root
cd root
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t tmpfs tmpfs sys/fs/cgroup
mkdir sys/fs/cgroup/systemd
mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd
for folder in run tmp dev; do mount -t tmpfs tmpfs $folder; done
chmod 1777 tmp
mkdir dev/shm dev/pts dev/mqueue dev/hugepages
mount -t devpts devpts dev/pts -o newinstance,ptmxmode=0666
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
for device in null zero full random urandom tty; do touch dev/$device; mount --bind /dev/$device dev/$device; done
mkdir -p opt/recollect/.venv/bin opt/recollect/ops opt/recollect/docs
shift
while [ $# -gt 0 ]; do mkdir -p .$2; mount --bind "$1" .$2; shift 2; done
mount --bind opt/code/ops opt/recollect/ops
printf %s "$PROGRAM" >opt/recollect/.venv/bin/recollect
chmod 755 opt/recollect/.venv/bin/recollect
# Nothing of this machine's own is started.
rm -rf etc/systemd/system run/systemd
mkdir -p etc/systemd/system
printf '[Unit]\nDefaultDependencies=no\nAllowIsolate=yes\n' >etc/systemd/system/bare.target
ln -s /dev/null etc/systemd/system/network-online.target
mkdir -p mnt/old
pivot_root . mnt/old
cd /
umount -l /mnt/old
exec env -i container=other PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  /lib/systemd/systemd --system --unit=bare.target --log-target=null --show-status=0
"""


def require_booted_machine() -> None:
    """Skip the test, with the reason, where no machine can be booted; in CI let it fail instead."""
    reason = namespace.refusal()
    if reason is None and not SYSTEMD.exists():
        reason = "This machine has no systemd (on Debian: apt-get install systemd)."
    if reason is None and not _HIERARCHY.exists():
        reason = "This machine has no control groups of systemd's own hierarchy."
    if reason is not None and os.environ.get("CI") != "true":
        pytest.skip(reason)


class BootedMachine:
    """A context in which the machine runs. `folder` is an empty one, for its changed files."""

    def __init__(self, folder: Path) -> None:
        # A hierarchy of its own: its systemd sees no process of this machine.
        self._group = _HIERARCHY / f"recollect-{os.getpid()}-{folder.name}"
        self._group.mkdir()
        shown = [word for place, source in _SHOWN.items() for word in (str(source), place)]
        enter = f'echo 0 >"{self._group}/cgroup.procs" && exec "$@"'
        unshare = ["unshare", "--mount", "--pid", "--fork", "--uts", "--ipc", "--cgroup", "--kill-child"]
        self._process = subprocess.Popen(
            ["sh", "-c", enter, "sh", *unshare, "sh", "-c", _BOOT, "sh", str(folder), *shown],
            env={**os.environ, "PROGRAM": _PROGRAM},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __enter__(self) -> Self:
        """Wait until systemd answers."""
        deadline_s = time.monotonic() + _BOOT_S
        while self.run("systemctl", "is-system-running").stdout.strip() not in {"running", "degraded"}:
            assert self._process.poll() is None, self._process.communicate()[0]
            assert time.monotonic() < deadline_s, "systemd does not answer"
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        """Kill everything in it."""
        self._process.kill()
        self._process.communicate()
        deadline_s = time.monotonic() + _BOOT_S
        # The kernel removes the processes of a PID namespace after its PID 1.
        while self._group.exists() and time.monotonic() < deadline_s:
            for folder in sorted(self._group.rglob("*/"), reverse=True):
                _remove(folder)
            _remove(self._group)
            time.sleep(0.02)

    def run(self, *argv: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a command in it, as root."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        if not children:
            return subprocess.CompletedProcess(argv, 1, "", "it has not begun yet")
        enter = [
            "nsenter",
            f"--target={children[0]}",
            "--mount",
            "--pid",
            "--uts",
            "--ipc",
            "--cgroup",
            "--root",
            "--wd",
        ]
        return subprocess.run([*enter, *argv], env={**os.environ, **environ}, capture_output=True, text=True, cwd="/")

    def write(self, path: str, text: str) -> None:
        """Write a file in it; a new one is root's, and one that is there keeps its owner and mode."""
        done = self.run("sh", "-c", f'mkdir -p "$(dirname {path})" && printf %s "$TEXT" >{path}', TEXT=text)
        assert done.returncode == 0, done.stderr

    def property(self, unit: str, name: str) -> str:
        """Return a property of a unit."""
        return self.run("systemctl", "show", "--property", name, "--value", unit).stdout.strip()


def _remove(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return
