"""Blocking calls beside the event loop, in threads that hold up nothing: neither the next call nor the process's end.

Invariant: the caller may give up at any time. The call then runs on by itself, what it returns is dropped, and the
interpreter ends without it: the threads are daemons, which those of `concurrent.futures` and `asyncio.to_thread` are
not.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

_T = TypeVar("_T")


async def run_in_daemon_thread(call: Callable[[], _T], name: str) -> _T:
    """Run a call in a thread of its own, and wait for it.

    Args:
        call: What may block, for ever if it comes to that.
        name: The thread's, for debuggers.

    Returns:
        What the call returns.

    Raises:
        Exception: What the call raises.
        CancelledError: The caller gave up; the call goes on.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[_T] = loop.create_future()

    def settle(result: _T | None, error: BaseException | None) -> None:
        if ended.cancelled():
            return
        if error is not None:
            ended.set_exception(error)
        else:
            ended.set_result(result)  # type: ignore[arg-type]  # without an error it is what the call returned

    def work() -> None:
        result, error = None, None
        try:
            result = call()
        except BaseException as raised:  # noqa: BLE001 - it belongs to the caller
            error = raised
        # The loop may have ended; nothing waits for the result then.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=work, name=name, daemon=True).start()
    return await ended
