"""Runs a command's long work in a child process, so that Ctrl-C ends it in time whatever it computes.

A signal handler of Python's waits for the interpreter, and compiled kernels and LAPACK give it back only when they are
done: with k-NN and EASE that took up to 40 s. The parent computes nothing, so it hears every signal at once.

Invariants: the child is asked first and ends by itself if it can, with its files in order and its own words; what has
not ended `GRACE_S` later is killed, and the parent says so. A child that was killed leaves what a crash leaves, which
the next command clears away: a model that is not whole is in no place where models are looked for. The child dies with
the parent. Linux only, as the rest of what starts processes.
"""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Final, NoReturn

from ops.console.refusal import INTERRUPTED
from ops.console.terminal import raw

GRACE_S: Final = 1.5
_PR_SET_PDEATHSIG: Final = 1
_STOPS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SHOW_CURSOR: Final = "\x1b[?25h\n"


def run(work: Callable[[], int]) -> int:
    """Run work in a child process, and return its exit code.

    Args:
        work: Returns an exit code; raises KeyboardInterrupt when it is asked to stop, where it can.

    Returns:
        What `work` returned; 130 if it was killed after Ctrl-C, 128 and the signal's number after another one, and 1 if
        something else killed it.
    """
    # A signal that its sender's shell told us to ignore, as nohup does SIGHUP, stays ignored. SIGINT is never: a script
    # has its background commands ignore it, but a sender of this one means it.
    stops = {number for number in _STOPS if number is signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN}
    watched = {*stops, signal.SIGCHLD}
    # Blocked before the fork, so that no signal falls between the two.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        _be_child(parent)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return work()
    try:
        return _watch(child, watched)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def dies_with(parent: int) -> Callable[[], None]:
    """Return what a child calls first, a `preexec_fn` say, so that it is killed when its parent is no more."""
    library = ctypes.CDLL(None)

    def in_the_child() -> None:
        library.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        # The parent may have died before the kernel was told.
        if os.getppid() != parent:
            os._exit(1)

    return in_the_child


def _be_child(parent: int) -> None:
    dies_with(parent)()
    signal.signal(signal.SIGINT, _interrupt_once)


def _interrupt_once(_number: int, _frame: FrameType | None) -> NoReturn:
    # A terminal signals both processes, and the parent passes on what it hears: once is enough, and a second one
    # would interrupt the tidying up.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def _watch(child: int, watched: set[signal.Signals]) -> int:
    asked: signal.Signals | None = None
    deadline_s = 0.0
    while True:
        if asked is None:
            number: int | None = signal.sigwait(watched)
        else:
            found = signal.sigtimedwait(watched, max(0.0, deadline_s - time.monotonic()))
            number = None if found is None else found.si_signo
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return _exit_code(status, asked)
        if number == signal.SIGCHLD:  # stopped or continued
            continue
        if number is None or asked is not None:
            # Its time is up, or the person asked twice.
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            return _exit_code(status, asked)
        asked = signal.Signals(number)
        deadline_s = time.monotonic() + GRACE_S
        os.kill(child, asked)


def _exit_code(status: int, asked: signal.Signals | None) -> int:
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return code
    if sys.stderr.isatty():
        raw(sys.stderr).write(_SHOW_CURSOR)  # a progress bar hides it, and is left where it was
    if asked is signal.SIGINT:
        return _say("interrupted", INTERRUPTED)
    if asked is not None:
        return _say(f"stopped by {asked.name}", 128 + asked)
    if code == -signal.SIGKILL:
        return _say("the process was killed, most likely for want of memory", 1)
    return _say(f"the process was ended by {signal.Signals(-code).name}", 1)


def _say(sentence: str, code: int) -> int:
    sys.stderr.write(f"recollect: {sentence}\n")
    return code
