"""The only file that spawns, signals and waits.

Invariant: a child leads a session and a process group of its own, is told to stop by the kernel when this process dies
(PR_SET_PDEATHSIG, prctl(2)), and is reaped only after every process of its group was killed. The zombie keeps its
number until then, so no signal can reach a stranger who got the same one.

Linux only: it needs prctl and /proc.
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

# Loaded here and not in the child: between fork and exec a child should do as little as it can.
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Command:
    """How to start one part.

    Args:
        argv: The program and its arguments.
        environ: Its whole environment.
        output: The file its standard output and error are appended to.
        stop_signal: Asks it to stop in good order.
        reload_signal: Asks it to read its files again; None for a program that cannot.
        reload_files: Files that others replace, of which it is told by that signal.
        logs: Files that the program itself writes without end, and opens again on SIGUSR1.
        log_limit_bytes: Size at which one of them is set aside.
        words: What a spare is told in order to become this part; empty for a part that no spare can be.
    """

    argv: tuple[str, ...]
    environ: Mapping[str, str]
    output: Path
    stop_signal: signal.Signals = signal.SIGTERM
    reload_signal: signal.Signals | None = None
    reload_files: tuple[Path, ...] = ()
    logs: tuple[Path, ...] = ()
    log_limit_bytes: int = 0
    words: tuple[str, ...] = ()


class Child:
    """A started part. Use it from the thread that started it: the death signal follows that thread, not the process."""

    def __init__(self, process: subprocess.Popen[bytes], command: Command) -> None:
        self._process = process
        self._command = command
        self.pid = process.pid

    def __repr__(self) -> str:
        return f"<Child {self.pid}>"

    def ended(self) -> bool:
        """Whether the process is over; it is not reaped by asking."""
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return self._process.returncode is not None or os.waitid(os.P_PID, self.pid, options) is not None

    def stop(self) -> None:
        """Ask the process to stop in good order; whatever of its group is frozen is thawed, or it could not hear it."""
        self._signal(self._command.stop_signal)
        self._signal_group(signal.SIGCONT)

    def reload(self) -> None:
        """Ask the process to read its files again, if it can."""
        if self._command.reload_signal is not None:
            self._signal(self._command.reload_signal)

    def bound_logs(self) -> bool:
        """Set aside the logs that are over their limit, and return whether there were any; may be called anywhere.

        Until it is told (`reopen_logs`), the process writes on in the file that was renamed, and loses no line.
        """
        return bool([log for log in self._command.logs if set_aside(log, self._command.log_limit_bytes)])

    def reopen_logs(self) -> None:
        """Tell the process to go on in new logs."""
        self._signal(signal.SIGUSR1)

    def kill(self) -> None:
        """Kill the process and all of its group."""
        self._signal_group(signal.SIGKILL)

    def reap(self) -> int:
        """Kill what is left of the group, wait for the process, and return its status (negative: a signal)."""
        self.kill()
        return self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def _signal_group(self, number: signal.Signals) -> None:
        # Only an unreaped process still owns its number.
        if self._process.returncode is None:
            signal_group(self.pid, number)


def spawn(command: Command) -> Child:
    """Start a part.

    The death signal is SIGTERM for every part. nginx's master passes it on to its workers, whom SIGKILL would leave
    behind holding the port; replicas and Redis get the chance to write down what they hold.

    Raises:
        OSError: The program cannot be started.
    """
    set_aside(command.output, _OUTPUT_LIMIT_BYTES)
    with command.output.open("ab") as output:
        process = subprocess.Popen(
            command.argv,
            env=command.environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_dies_with(os.getpid(), signal.SIGTERM),  # noqa: PLW1509  # it takes no lock of another thread
        )
    return Child(process, command)


class Spare:
    """A process that has loaded what our parts need and waits to be told which one to be.

    Loading takes a Python part a second of CPU, and most of the time that it is away after a death.

    Args:
        argv: The program; it reads one line of JSON, {"words": [...], "output": "..."}, and becomes that part, or ends
            with its standard input.
        environ: Its whole environment.
        output: Where what it says goes until it is somebody.

    Raises:
        OSError: The program cannot be started.
    """

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str], output: Path) -> None:
        self._environ = environ
        set_aside(output, _OUTPUT_LIMIT_BYTES)
        with output.open("ab") as file:
            self._process = subprocess.Popen(
                argv,
                env=environ,
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_dies_with(os.getpid(), signal.SIGTERM),  # noqa: PLW1509  # it takes no lock of others
            )

    def __repr__(self) -> str:
        return f"<Spare {self._process.pid}>"

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._process.pid

    def become(self, command: Command) -> Child | None:
        """Make it a part.

        Args:
            command: The part's; its program is not started.

        Returns:
            The part, or None if this spare cannot be it and has been discarded.
        """
        set_aside(command.output, _OUTPUT_LIMIT_BYTES)
        order = json.dumps({"words": command.words, "output": str(command.output)}) + "\n"
        if command.environ == self._environ and self._process.poll() is None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.write(order.encode())
                self._process.stdin.close()
                return Child(self._process, command)
        self.discard()
        return None

    def discard(self) -> None:
        """End it."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        self._process.kill()
        self._process.wait()


def spawn_attached(argv: Sequence[str], environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a program that shares our terminal and process group, and so gets the terminal's Ctrl-C itself.

    Raises:
        OSError: The program cannot be started.
    """
    return subprocess.Popen(
        argv,
        env=environ,
        preexec_fn=_dies_with(os.getpid(), signal.SIGTERM),  # noqa: PLW1509  # it takes no lock of another thread
    )


def set_aside(log: Path, limit_bytes: int) -> bool:
    """Rename a log that is over its limit to NAME.1, replacing an older one; return whether it was.

    Its writer must not be running, or must be told to open the log again.
    """
    # A log that cannot be renamed goes on growing, which is no reason to stop anything.
    with contextlib.suppress(OSError):
        if log.stat().st_size > limit_bytes:
            log.replace(log.with_name(log.name + ".1"))
            return True
    return False


def run_to_end(argv: Sequence[str], timeout_s: float) -> tuple[int, str]:
    """Run a short program; return its status and all it printed.

    Raises:
        OSError: It cannot be started.
        TimeoutError: It did not end in time, and was killed.
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
        raise TimeoutError(f"{argv[0]} did not end within {timeout_s:g} s") from None
    return done.returncode, done.stdout


def signal_group(leader_pid: int, number: signal.Signals) -> None:
    """Send a signal to a process group; one that is gone is fine."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader_pid, number)


def group_members(leader_pid: int, output: str) -> list[int]:
    """Find the living processes of a part that an earlier supervisor started.

    Numbers are used again, so a number proves nothing: a process is ours if it is in the session and group that the
    leader made, and its standard output is the part's own file. That also finds nginx workers whose master is dead.

    Args:
        leader_pid: The part's process when it was started.
        output: The path of the part's output file.

    Returns:
        The process numbers, in no order.
    """
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        # A process may end between any two of these lines.
        with contextlib.suppress(OSError, ValueError):
            stat = Path(entry.path, "stat").read_text()
            state, _, group, session = stat.rpartition(")")[2].split()[:4]
            if int(group) != leader_pid or int(session) != leader_pid or state in "ZX":
                continue
            if str(Path(entry.path, "fd", "1").readlink()).removesuffix(" (deleted)") == output:
                found.append(int(entry.name))
    return found


def reap_orphans(ours: Collection[int]) -> None:
    """Reap the dead processes that this one got as children when their parents died, as PID 1 of a container does.

    Args:
        ours: The children that this process started, each of which is reaped where its status is wanted.
    """
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) in ours:
            continue
        with contextlib.suppress(OSError, ValueError):
            state, parent = Path(entry.path, "stat").read_text().rpartition(")")[2].split()[:2]
            if state == "Z" and int(parent) == os.getpid():
                os.waitpid(int(entry.name), os.WNOHANG)


def _dies_with(parent_pid: int, number: signal.Signals) -> Callable[[], None]:
    def in_the_child() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        # The parent may have died before the kernel was told.
        if os.getppid() != parent_pid:
            os._exit(1)

    return in_the_child
