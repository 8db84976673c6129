"""Runs a program as PID 1 of a container made of an unpacked image, as a container runtime does (Linux, root).

Run by its path with the standard library alone: `python -IS ops/containers/contain.py SPECIFICATION`, where the
specification is what `ops.containers.pod` writes, as JSON.

Invariants: the program has its own PID, mount, IPC and host name namespaces, sees no file outside the image and its
mounts, has no capability and cannot get one. This process passes stop signals on to it, ends with its exit code (128
and the number, if a signal ended it), and takes the whole container with it when it is killed.
"""

import ctypes
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

# sched.h, sys/mount.h and linux/prctl.h.
_NEW_NAMESPACES = 0x00020000 | 0x20000000 | 0x08000000 | 0x04000000  # mount, pid, ipc, uts
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT, _BIND, _REC, _PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
_DETACH = 2
_PDEATHSIG, _CAPBSET_DROP, _NO_NEW_PRIVS = 1, 24, 38
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_LAST_CAPABILITY = Path("/proc/sys/kernel/cap_last_cap")
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_CANNOT_START = 125

_LIBC = ctypes.CDLL(None, use_errno=True)


def main() -> int:
    """Make the container and wait for its program."""
    specification = json.loads(sys.argv[1])
    # Blocked until the handlers are there, so that no stop signal is lost.
    signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
    _call("unshare", _NEW_NAMESPACES)
    child = os.fork()
    if child == 0:
        try:
            _become(specification)
        except OSError as error:
            sys.stderr.write(f"The container could not be made: {error}.\n")
            sys.stderr.flush()
        os._exit(_CANNOT_START)
    for number in _FORWARDED:
        signal.signal(number, lambda received, _frame: os.kill(child, received))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _become(specification: dict[str, Any]) -> NoReturn:
    """Turn this process, which is PID 1 of its namespace, into the program."""
    root = Path(specification["root"])
    if specification["host_name"]:
        socket.sethostname(specification["host_name"])
    _mount(None, "/", None, _REC | _PRIVATE)
    _mount(root, root, None, _BIND)
    _mount_system(root)
    for name in ("hosts", "resolv.conf"):
        # As container runtimes do, so that names of the network's other machines are known.
        _bind(Path("/etc", name), root / "etc" / name, read_only=True)
    for path, size_bytes in specification["tmpfs"].items():
        _mount_tmpfs(_place(root, path), 0o1777, size_bytes=size_bytes)
    for mount in specification["mounts"]:
        _bind(Path(mount["source"]), _place(root, mount["target"]), read_only=mount["read_only"])
    if specification["read_only"]:
        _mount(None, root, None, _REMOUNT | _BIND | _RDONLY | _NOSUID)
    os.chdir(root)
    _pivot_root()
    os.chdir(specification["folder"])
    _drop_privileges(specification["uid"], specification["gid"])
    # After the change of the user, which clears it.
    _call("prctl", _PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    os.umask(0o022)
    for number in (*_FORWARDED, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    argv, environ = specification["argv"], specification["environ"]
    os.execvpe(argv[0], argv, environ)  # noqa: S606 - there is no shell


def _place(root: Path, target: str) -> Path:
    return root / target.lstrip("/")


def _mount_system(root: Path) -> None:
    """Mount /proc, /sys and a /dev with the devices that every program may use."""
    for folder in ("proc", "sys", "dev"):
        (root / folder).mkdir(exist_ok=True)
    _mount("proc", root / "proc", "proc", _NOSUID | _NODEV | _NOEXEC)
    _mount("sysfs", root / "sys", "sysfs", _NOSUID | _NODEV | _NOEXEC | _RDONLY)
    _mount_tmpfs(root / "dev", 0o755, devices=True)
    for name in _DEVICES:
        _bind(Path("/dev", name), root / "dev" / name, read_only=False)
    for name, target in _LINKS.items():
        (root / "dev" / name).symlink_to(target)
    _mount_tmpfs(root / "dev" / "shm", 0o1777)


def _mount_tmpfs(target: Path, mode: int, *, devices: bool = False, size_bytes: int | None = None) -> None:
    target.mkdir(parents=True, exist_ok=True)
    options = f"mode={mode:o}" + ("" if size_bytes is None else f",size={size_bytes}")
    _mount("tmpfs", target, "tmpfs", _NOSUID | (0 if devices else _NODEV), options)


def _bind(source: Path, target: Path, *, read_only: bool) -> None:
    """Show a file or a folder at another place; an absent place is made."""
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    elif not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    _mount(source, target, None, _BIND)
    if read_only:
        _mount(None, target, None, _REMOUNT | _BIND | _RDONLY | _NOSUID)


def _pivot_root() -> None:
    """Make the working directory the root, and the old root unreachable (pivot_root(2), section "pivot_root(., .)")."""
    number = _PIVOT_ROOT.get(os.uname().machine)
    if number is None:
        raise OSError(f"pods run on {' and '.join(_PIVOT_ROOT)}, and this machine is {os.uname().machine}")
    _call("syscall", number, b".", b".")
    _call("umount2", b".", _DETACH)
    os.chdir("/")


def _drop_privileges(uid: int, gid: int) -> None:
    for capability in range(int(_LAST_CAPABILITY.read_text()) + 1):
        _call("prctl", _CAPBSET_DROP, capability, 0, 0, 0)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    _call("prctl", _NO_NEW_PRIVS, 1, 0, 0, 0)


def _mount(source: object, target: object, kind: str | None, flags: int, options: str | None = None) -> None:
    words = [None if word is None else os.fsencode(str(word)) for word in (source, target, kind, options)]
    try:
        _call("mount", *words[:3], flags, words[3])
    except OSError as error:
        raise OSError(error.errno, f"mounting {target}: {os.strerror(error.errno or 0)}") from None


def _call(name: str, *arguments: object) -> None:
    """Call a function of the C library.

    Raises:
        OSError: It failed.
    """
    # Longs, because prctl and syscall take any number of arguments of a register's size.
    words = [ctypes.c_ulong(word) if isinstance(word, int) else word for word in arguments]
    if getattr(_LIBC, name)(*words) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


if __name__ == "__main__":
    sys.exit(main())
