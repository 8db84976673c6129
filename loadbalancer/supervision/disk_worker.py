"""Runs file operations beside the supervisor's event loop.

Invariant: operations run one at a time in the order of submission, in a daemon thread, so that a hanging disk delays
neither the loop nor the end of the process. Threads of `concurrent.futures` executors would delay the latter.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class DiskWorker:
    """One worker thread. Create it in the thread that runs the event loop."""

    def __init__(self) -> None:
        self._submitted: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="disk-worker", daemon=True).start()

    def submit(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """Queue a call that may block, and return the future of its result; one cancelled while queued is skipped."""
        future: Future[T] = Future()
        self._submitted.put((future, call))
        return asyncio.wrap_future(future)

    def _work(self) -> None:
        while True:
            future, call = self._submitted.get()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except Exception as error:  # noqa: BLE001  # the caller of `submit` handles it
                    future.set_exception(error)
