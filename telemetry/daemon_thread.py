"""Blocking calls in daemon threads, which delay neither the next call nor the process's end.

Invariant: the caller may be cancelled at any time. The call then runs on, its result is dropped, and the interpreter
ends without it, because the threads are daemons; those of `concurrent.futures` and `asyncio.to_thread` are not.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

_T = TypeVar("_T")


async def run_in_daemon_thread(call: Callable[[], _T], name: str) -> _T:
    """Return the result of a call that may block, even without end, in a thread with a name."""
    done: Future[_T] = Future()
    # A running future cannot be cancelled: after a cancelled `await` the thread sets a result that nothing reads.
    done.set_running_or_notify_cancel()

    def work() -> None:
        try:
            done.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised in the caller
            done.set_exception(error)

    threading.Thread(target=work, name=name, daemon=True).start()
    return await asyncio.wrap_future(done)
