"""Makes a command fit to be PID 1 of a container: the command runs in a child, and this process does what an init does.

Invariants: PID 1 reaps every process that is left to it, so that a container with commands of `exec` in it gathers no
zombies. It passes signals on, which the kernel would not deliver to a PID 1 that has no handler for them. It ends with
the command, and with its exit code.

Before the fork only the standard library and the parser of arguments are loaded, and the child shares their memory.
"""

import os
import signal
from typing import Final, NoReturn

_FORWARDED: Final = frozenset(
    (
        *(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2),
        *(signal.SIGWINCH, signal.SIGCONT),
    )
)


def split_off() -> None:
    """Return in a new process, which is to run the command; this one never returns."""
    watched = _FORWARDED | {signal.SIGCHLD}
    # Blocked before the fork, so that none is lost.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    child = os.fork()
    if child == 0:
        _lead_the_terminal()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    _watch(child, watched)


def _watch(child: int, watched: frozenset[signal.Signals]) -> NoReturn:
    """Reap all processes and pass on signals until the child ends; then end this process with its exit code."""
    while True:
        number = signal.sigwait(watched)
        if number != signal.SIGCHLD:
            os.kill(child, number)
            continue
        # One signal may stand for many children.
        while True:
            try:
                ended, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if ended == 0:
                break
            if ended == child:
                code = os.waitstatus_to_exitcode(status)
                # As a shell says it; PID 1 itself cannot end by a signal.
                os._exit(code if code >= 0 else 128 - code)


def _lead_the_terminal() -> None:
    """Make the child the foreground of its terminal, if there is one: Ctrl-C is then for it alone, and comes once."""
    os.setpgid(0, 0)
    if os.isatty(0):
        # A process of the background may not take the terminal unless it ignores this.
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        try:
            os.tcsetpgrp(0, os.getpid())
        except OSError:
            pass
        finally:
            signal.signal(signal.SIGTTOU, signal.SIG_DFL)
