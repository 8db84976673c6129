"""Runs a command's long work in a child process, so that Ctrl-C ends it within `GRACE_S` whatever it computes.

A Python signal handler runs only when the interpreter gets control back, and compiled kernels and LAPACK keep it up to
40 s (k-NN, EASE). The parent computes nothing, so it handles every signal at once.

Invariants: the child is signalled first, and can end by itself with its files in order. After `GRACE_S` it is killed,
and the parent prints why. A killed child leaves what a crash leaves, which the next command removes; an incomplete
model is never where models are looked for. The child dies with the parent. Linux only.
"""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Final, NoReturn

from ops.console.command_runner import INTERRUPTED
from ops.console.terminal import print_error, unescaped

GRACE_S: Final = 1.5
_PR_SET_PDEATHSIG: Final = 1
_STOPS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SHOW_CURSOR: Final = "\x1b[?25h\n"


def run(work: Callable[[], int]) -> int:
    """Run work in a child process, and return its exit code.

    Args:
        work: Returns an exit code; raises KeyboardInterrupt on SIGINT, where it can.

    Returns:
        The value of `work`; 130 if it was killed after Ctrl-C, 128 and the signal's number after another signal, and 1
        if something else killed it.
    """
    # A signal ignored on entry, as SIGHUP under nohup, stays ignored. SIGINT does not: shells have background commands
    # ignore it, but one sent to this process is meant.
    stops = {number for number in _STOPS if number is signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN}
    watched = {*stops, signal.SIGCHLD}
    # Blocked before the fork, so that no signal is lost between fork and wait.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        parent_death_hook(parent)()
        signal.signal(signal.SIGINT, _interrupt_once)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        code = work()
        if code == INTERRUPTED:
            # The sentence is printed. Waiting for threads in the middle of a computation could only end in a kill, and
            # in the same sentence again.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        return code
    try:
        return _wait(child, watched)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def parent_death_hook(parent: int) -> Callable[[], None]:
    """Return a function for a child to call first, such as a `preexec_fn`: the child is killed when its parent ends."""
    library = ctypes.CDLL(None)

    def in_the_child() -> None:
        library.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        # The parent may have ended before prctl.
        if os.getppid() != parent:
            os._exit(1)

    return in_the_child


def _interrupt_once(_number: int, _frame: FrameType | None) -> NoReturn:
    # A terminal signals both processes and the parent forwards its signal; a second one would interrupt the clean-up.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def _wait(child: int, watched: set[signal.Signals]) -> int:
    """Forward the first stop signal, kill the child after a second one or `GRACE_S`, and return its exit code."""
    forwarded: signal.Signals | None = None
    deadline_s = 0.0
    while True:
        if forwarded is None:
            number: int | None = signal.sigwait(watched)
        else:
            found = signal.sigtimedwait(watched, max(0.0, deadline_s - time.monotonic()))
            number = None if found is None else found.si_signo
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return _exit_code(status, forwarded)
        if number == signal.SIGCHLD:  # stopped or continued
            continue
        if number is None or forwarded is not None:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            return _exit_code(status, forwarded)
        forwarded = signal.Signals(number)
        deadline_s = time.monotonic() + GRACE_S
        os.kill(child, forwarded)


def _exit_code(status: int, forwarded: signal.Signals | None) -> int:
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return code
    if sys.stderr.isatty():
        unescaped(sys.stderr).write(_SHOW_CURSOR)  # a killed progress bar leaves it hidden
    if forwarded is signal.SIGINT:
        sentence, code = "Interrupted.", INTERRUPTED
    elif forwarded is not None:
        sentence, code = f"Stopped by {forwarded.name}.", 128 + forwarded
    elif code == -signal.SIGKILL:
        sentence, code = "The process was killed, most likely for want of memory.", 1
    else:
        sentence, code = f"The process was ended by {signal.Signals(-code).name}.", 1
    print_error(sentence)
    return code
