"""Writes nginx's configuration, after asking nginx which directives it has, and has nginx check it."""

import contextlib
import grp
import os
import pwd
import re
import resource
import tempfile
from collections.abc import Sequence
from pathlib import Path

from loadbalancer.errors import ConfigurationRefused
from loadbalancer.nginx.configuration import OPTIONAL_DIRECTIVES, OUTSIDE_HTTP, NginxHost
from loadbalancer.supervision.processes import run_to_end

_CHECK_TIMEOUT_S = 30.0


def command(nginx: Path, run_dir: Path, error_log: Path) -> tuple[str, ...]:
    """Return the argv of an nginx that writes only to these folders."""
    # Without -e nginx opens its compiled-in error log before it reads any configuration.
    return (str(nginx), "-p", f"{run_dir}/", "-e", str(error_log), "-c", str(run_dir / "nginx.conf"))


def inspect_host(nginx: Path, *, run_dir: Path, logs: Path, models: Path) -> NginxHost:
    """Return what `configuration.render` needs about this machine and this nginx.

    Raises:
        ConfigurationRefused: Nginx rejects even the smallest configuration.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    user = None
    if os.geteuid() == 0:
        # The workers stay root, as `up` warns: another user could neither read the static lists in a home of mode
        # 0700 nor reopen the logs.
        user = (pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name)
    return NginxHost(
        run_dir=run_dir,
        logs=logs,
        models=models,
        features=supported_directives(nginx, run_dir),
        user=user,
        open_files=2**31 if hard == resource.RLIM_INFINITY else hard,
    )


def supported_directives(nginx: Path, scratch: Path) -> frozenset[str]:
    """Return those of `OPTIONAL_DIRECTIVES` that this nginx has, probed in a folder of this installation.

    A container may have no other writable folder.

    Raises:
        ConfigurationRefused: Nginx rejects the probing configuration for another reason.
    """
    known = list(OPTIONAL_DIRECTIVES)
    with tempfile.TemporaryDirectory(prefix="probe-", dir=scratch) as folder:
        path = Path(folder)
        while True:
            lines = {name: f"{name} {OPTIONAL_DIRECTIVES[name] or name};" for name in known}
            outside = " ".join(lines.pop(name) for name in OUTSIDE_HTTP if name in lines)
            # The pid file is relative to the prefix, whose name might need quotes.
            text = f"pid nginx.pid; {outside} events {{ }} http {{ access_log off; {' '.join(lines.values())} }}\n"
            (path / "nginx.conf").write_text(text)
            reason = rejection_reason(command(nginx, path, path / "error.log"))
            if reason is None:
                return frozenset(known)
            unknown = re.search(r'unknown directive "(\w+)"', reason)
            if unknown is None or unknown.group(1) not in known:
                raise ConfigurationRefused(f"{nginx} rejects an empty configuration: {reason}.")
            known.remove(unknown.group(1))


def install(argv: Sequence[str], run_dir: Path, text: str) -> None:
    """Write the configuration of the nginx of a folder, and have nginx check it.

    Raises:
        ConfigurationRefused: Nginx rejects it.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "nginx.conf").write_text(text, encoding="utf-8")
    check(argv, run_dir)


def replace(argv: Sequence[str], run_dir: Path, text: str) -> str | None:
    """Replace the configuration of the nginx of a folder atomically, unless nginx rejects the new one.

    Returns:
        Why nginx rejects it, or None. nginx reads it when it is told to reload.

    Raises:
        OSError: It cannot be written; the old one is unchanged.
    """
    path = run_dir / "nginx.conf"
    proposed = run_dir / "nginx.conf.new"
    try:
        proposed.write_text(text, encoding="utf-8")
        reason = rejection_reason([str(proposed) if word == str(path) else word for word in argv])
        if reason is None:
            proposed.replace(path)
        return reason
    finally:
        # The part that a full disk had room for, too.
        with contextlib.suppress(OSError):
            proposed.unlink()


def check(argv: Sequence[str], run_dir: Path) -> None:
    """Have nginx check the installed configuration and the certificates that it names.

    Raises:
        ConfigurationRefused: Nginx rejects them.
    """
    reason = rejection_reason(argv)
    if reason is not None:
        raise ConfigurationRefused(f"nginx rejects the configuration in {run_dir}: {reason}.")


def rejection_reason(argv: Sequence[str]) -> str | None:
    """Return why nginx rejects its configuration and the files that it names, or None."""
    try:
        status, output = run_to_end([*argv, "-t"], _CHECK_TIMEOUT_S)
    except (OSError, TimeoutError) as error:
        return str(error)
    if status == 0:
        return None
    lines = [line.removeprefix("nginx: ") for line in output.splitlines() if "[emerg]" in line]
    return (lines or output.splitlines() or [f"exit status {status}"])[0]
