"""Does what may wait for a disk, one thing after the other, so that the supervisor's event loop never does.

Invariant: work is done in the order in which it was given, in one thread, which the end of the process does not wait
for: a disk that hangs keeps files out of date and nothing else.
"""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Scribe:
    """The thread; make it where the loop runs."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._given: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="scribe", daemon=True).start()

    def do(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """Give work.

        Args:
            call: The work; it may block.

        Returns:
            What will hold its result or its error.
        """
        ended: asyncio.Future[T] = self._loop.create_future()

        def settle(result: T | None, error: Exception | None) -> None:
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
            except Exception as raised:  # noqa: BLE001  # it belongs to the caller of `do`
                error = raised
            # The loop may have ended; nothing waits for the result then.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(settle, result, error)

        self._given.put(work)
        return ended

    def _work(self) -> None:
        while True:
            self._given.get()()
