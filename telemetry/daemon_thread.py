"""Blocking calls in daemon threads, which delay neither the next call nor the process's end.

Invariant: the caller may be cancelled at any time. The call then runs on, its result is dropped, and the interpreter
ends without it, because the threads are daemons; those of `concurrent.futures` and `asyncio.to_thread` are not.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

_T = TypeVar("_T")


async def run_in_daemon_thread(call: Callable[[], _T], name: str) -> _T:
    """Return the result of a call that may block, even for ever, in a thread with a name."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[_T] = loop.create_future()

    def settle(result: _T | None, error: BaseException | None) -> None:
        if ended.cancelled():
            return
        if error is not None:
            ended.set_exception(error)
        else:
            ended.set_result(result)  # type: ignore[arg-type]  # without an error it is the result

    def work() -> None:
        result, error = None, None
        try:
            result = call()
        except BaseException as raised:  # noqa: BLE001 - raised in the caller
            error = raised
        # A loop that has ended has no caller that waits.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=work, name=name, daemon=True).start()
    return await ended
