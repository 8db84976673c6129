"""Puts nginx's configuration where nginx reads it, after asking nginx what it knows and whether it agrees."""

import grp
import os
import pwd
import re
import resource
import tempfile
from collections.abc import Sequence
from pathlib import Path

from loadbalancer.errors import ConfigurationRefused
from loadbalancer.nginx.configuration import OPTIONAL_DIRECTIVES, OUTSIDE_HTTP, Surroundings
from loadbalancer.processes import run_to_end

_CHECK_TIMEOUT_S = 30.0


def command(nginx: Path, run_dir: Path, error_log: Path) -> tuple[str, ...]:
    """Return the argv of an nginx that uses nothing outside these folders."""
    # Without -e nginx opens the error log it was compiled with, before it reads any configuration.
    return (str(nginx), "-p", f"{run_dir}/", "-e", str(error_log), "-c", str(run_dir / "nginx.conf"))


def surroundings(nginx: Path, *, run_dir: Path, logs: Path, models: Path) -> Surroundings:
    """Find out what `nginx.render` has to know about this machine and this nginx.

    Raises:
        ConfigurationRefused: Nginx refuses even the smallest configuration.
    """
    # In our own folder: a container may have no directory for temporary files that can be written.
    run_dir.mkdir(parents=True, exist_ok=True)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    user = None
    if os.geteuid() == 0:
        # The workers stay root, and `up` says so: another user could neither read the static lists in a home of mode
        # 0700, nor open the logs again.
        user = (pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name)
    return Surroundings(
        run_dir=run_dir,
        logs=logs,
        models=models,
        features=probe(nginx, run_dir),
        user=user,
        open_files=2**31 if hard == resource.RLIM_INFINITY else hard,
    )


def probe(nginx: Path, near: Path) -> frozenset[str]:
    """Ask nginx which of `OPTIONAL_DIRECTIVES` it knows.

    Args:
        nginx: The program.
        near: Where a folder may be made for as long as that takes.

    Raises:
        ConfigurationRefused: It refuses for another reason.
    """
    known = list(OPTIONAL_DIRECTIVES)
    with tempfile.TemporaryDirectory(prefix="probe-", dir=near) as folder:
        path = Path(folder)
        while True:
            lines = {name: f"{name} {OPTIONAL_DIRECTIVES[name] or name};" for name in known}
            outside = " ".join(lines.pop(name) for name in OUTSIDE_HTTP if name in lines)
            # Relative to the prefix, whose name may hold what would need quoting.
            text = f"pid nginx.pid; {outside} events {{ }} http {{ access_log off; {' '.join(lines.values())} }}\n"
            (path / "nginx.conf").write_text(text)
            complaint = complaint_of(command(nginx, path, path / "error.log"))
            if complaint is None:
                return frozenset(known)
            unknown = re.search(r'unknown directive "(\w+)"', complaint)
            if unknown is None or unknown.group(1) not in known:
                raise ConfigurationRefused(f"{nginx} refuses an empty configuration: {complaint}")
            known.remove(unknown.group(1))


def install(argv: Sequence[str], run_dir: Path, text: str) -> None:
    """Write a configuration and let nginx check it.

    Args:
        argv: What `command` returned for run_dir.
        run_dir: The folder of this nginx.
        text: What `nginx.render` returned.

    Raises:
        ConfigurationRefused: Nginx does not agree.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "nginx.conf").write_text(text, encoding="utf-8")
    check(argv, run_dir)


def check(argv: Sequence[str], run_dir: Path) -> None:
    """Let nginx check the configuration that is installed, and the certificates that it names.

    Args:
        argv: What `command` returned for run_dir.
        run_dir: The folder of this nginx.

    Raises:
        ConfigurationRefused: Nginx does not agree.
    """
    complaint = complaint_of(argv)
    if complaint is not None:
        raise ConfigurationRefused(f"nginx refuses the configuration in {run_dir}: {complaint}")


def stamps(paths: Sequence[Path]) -> tuple[tuple[int, int, int] | None, ...]:
    """Return what tells a file from one that took its place; None for one that is not there."""
    return tuple(map(_stamp, paths))


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def complaint_of(argv: Sequence[str]) -> str | None:
    """Return what nginx has against the configuration and the files that it names, or None."""
    try:
        status, output = run_to_end([*argv, "-t"], _CHECK_TIMEOUT_S)
    except (OSError, TimeoutError) as error:
        return str(error)
    if status == 0:
        return None
    lines = [line.removeprefix("nginx: ") for line in output.splitlines() if "[emerg]" in line]
    return (lines or output.splitlines() or [f"it ended with status {status}"])[0]
