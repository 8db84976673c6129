"""The only file that spawns, signals and waits for processes. Linux only: it needs prctl and /proc.

Invariant: a child leads a session and a process group of its own, gets a stop signal from the kernel when this process
dies (PR_SET_PDEATHSIG, prctl(2)), and is reaped only after every process of its group was killed. Until then the zombie
keeps its pid, so that no signal can reach an unrelated process with the same one.
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_OUTPUT_LIMIT_BYTES = 8 * 1024 * 1024

# Loaded before the fork: between fork and exec a child should do as little as possible.
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Command:
    """How to start one part.

    Args:
        environ: Its whole environment.
        output: The file its standard output and error are appended to.
        stop_signal: Asks it to stop gracefully.
        reload_signal: Asks it to read its files again; None if it cannot.
        reload_files: Files after whose replacement that signal is sent.
        logs: Files that it writes without limit, and opens again on SIGUSR1.
        log_limit_bytes: Size at which one of them is rotated.
        arguments: The arguments with which a spare becomes this part; empty if no spare can.
    """

    argv: tuple[str, ...]
    environ: Mapping[str, str]
    output: Path
    stop_signal: signal.Signals = signal.SIGTERM
    reload_signal: signal.Signals | None = None
    reload_files: tuple[Path, ...] = ()
    logs: tuple[Path, ...] = ()
    log_limit_bytes: int = 0
    arguments: tuple[str, ...] = ()


class Child:
    """A started part. Its starting thread must outlive it: the death signal follows that thread, not the process."""

    def __init__(self, process: subprocess.Popen[bytes], command: Command) -> None:
        self._process = process
        self._command = command
        self.pid = process.pid

    def __repr__(self) -> str:
        return f"<Child {self.pid}>"

    def exited(self) -> bool:
        """Whether the process has exited; it stays unreaped."""
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return self._process.returncode is not None or os.waitid(os.P_PID, self.pid, options) is not None

    def stop(self) -> None:
        """Ask the process to stop gracefully; its group is thawed, since a frozen process handles no signal."""
        self._signal(self._command.stop_signal)
        self._signal_group(signal.SIGCONT)

    def reload(self) -> None:
        """Ask the process to read its files again, if it can."""
        if self._command.reload_signal is not None:
            self._signal(self._command.reload_signal)

    def rotate_logs(self) -> bool:
        """Rename the logs that are over their limit; return whether there were any. Any thread may call it.

        Until `reopen_logs`, the process writes to the renamed file and loses no line.
        """
        return bool([log for log in self._command.logs if rotate(log, self._command.log_limit_bytes)])

    def reopen_logs(self) -> None:
        """Have the process open its logs again."""
        self._signal(signal.SIGUSR1)

    def kill(self) -> None:
        """Kill the process group."""
        self._signal_group(signal.SIGKILL)

    def reap(self) -> int:
        """Kill the rest of the group, wait for the process, and return its status (negative: a signal)."""
        self.kill()
        return self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def _signal_group(self, number: signal.Signals) -> None:
        # Only an unreaped process still owns its pid.
        if self._process.returncode is None:
            signal_group(self.pid, number)


def spawn(command: Command) -> Child:
    """Start a part.

    The death signal is SIGTERM for every part. nginx's master passes it on to its workers, which SIGKILL would leave
    behind with the port; replicas and Redis can write out what they hold.

    Raises:
        OSError: The program cannot be started.
    """
    rotate(command.output, _OUTPUT_LIMIT_BYTES)
    return Child(_popen(command.argv, command.environ, command.output, stdin=subprocess.DEVNULL), command)


class Spare:
    """A process that has loaded the Python parts' modules and waits to become one of them.

    Loading takes a second of CPU, which is most of the downtime of a Python part after a crash.

    Args:
        argv: The program; it reads one line of JSON, {"arguments": [...], "output": "..."}, and becomes that part. At
            the end of its standard input it exits.
        environ: Its whole environment.
        output: The file of its output until then.

    Raises:
        OSError: The program cannot be started.
    """

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str], output: Path) -> None:
        self._environ = environ
        rotate(output, _OUTPUT_LIMIT_BYTES)
        self._process = _popen(argv, environ, output, stdin=subprocess.PIPE)

    def __repr__(self) -> str:
        return f"<Spare {self._process.pid}>"

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def become(self, command: Command) -> Child | None:
        """Turn it into a part; return None if it cannot become that part and was discarded."""
        rotate(command.output, _OUTPUT_LIMIT_BYTES)
        assignment = json.dumps({"arguments": command.arguments, "output": str(command.output)}) + "\n"
        if command.environ == self._environ and self._process.poll() is None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.write(assignment.encode())
                self._process.stdin.close()
                return Child(self._process, command)
        self.discard()
        return None

    def discard(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        self._process.kill()
        self._process.wait()


def spawn_attached(argv: Sequence[str], environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a program in this terminal and process group, so that Ctrl-C reaches it directly.

    Raises:
        OSError: The program cannot be started.
    """
    return subprocess.Popen(
        argv,
        env=environ,
        preexec_fn=_death_signal_setter(os.getpid(), signal.SIGTERM),  # noqa: PLW1509  # it takes no lock of another thread
    )


def rotate(log: Path, limit_bytes: int) -> bool:
    """Rename a log that is over its limit to NAME.1, replacing an older one; return whether it was.

    The caller makes sure that its writer does not run, or opens the log again.
    """
    # A log that cannot be renamed keeps growing, which is better than no start.
    with contextlib.suppress(OSError):
        if log.stat().st_size > limit_bytes:
            log.replace(log.with_name(log.name + ".1"))
            return True
    return False


def run_to_end(argv: Sequence[str], timeout_s: float) -> tuple[int, str]:
    """Run a short program; return its status and its output.

    Raises:
        OSError: It cannot be started.
        TimeoutError: It did not exit in time, and was killed.
    """
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
            encoding="utf-8",
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"{argv[0]} did not exit within {timeout_s:g} s") from None
    return done.returncode, done.stdout


def signal_group(leader_pid: int, number: signal.Signals) -> None:
    """Send a signal to a process group, if it still exists."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader_pid, number)


def group_members(leader_pid: int, output: str) -> list[int]:
    """Find the living processes of a part that an earlier supervisor started.

    Pids are reused, so a pid alone proves nothing: a process belongs to the part if it is in the session and group of
    the leader, and its standard output is the part's own file. That also finds nginx workers whose master is dead.
    """
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        # A process may exit between any two of these lines.
        with contextlib.suppress(OSError, ValueError):
            stat = Path(entry.path, "stat").read_text()
            state, _, group, session = stat.rpartition(")")[2].split()[:4]
            if int(group) != leader_pid or int(session) != leader_pid or state in "ZX":
                continue
            if str(Path(entry.path, "fd", "1").readlink()).removesuffix(" (deleted)") == output:
                found.append(int(entry.name))
    return found


def reap_orphans(children: Collection[int]) -> None:
    """Reap the dead processes that this one inherited as PID 1 of a container, but not its own children."""
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) in children:
            continue
        with contextlib.suppress(OSError, ValueError):
            state, parent = Path(entry.path, "stat").read_text().rpartition(")")[2].split()[:2]
            if state == "Z" and int(parent) == os.getpid():
                os.waitpid(int(entry.name), os.WNOHANG)


def _popen(argv: Sequence[str], environ: Mapping[str, str], output: Path, *, stdin: int) -> subprocess.Popen[bytes]:
    with output.open("ab") as file:
        return subprocess.Popen(
            argv,
            env=environ,
            stdin=stdin,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_death_signal_setter(os.getpid(), signal.SIGTERM),  # noqa: PLW1509  # it takes no lock of another thread
        )


def _death_signal_setter(parent_pid: int, number: signal.Signals) -> Callable[[], None]:
    def set_death_signal() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        # The parent may have died before this call.
        if os.getppid() != parent_pid:
            os._exit(1)

    return set_death_signal
