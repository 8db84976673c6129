"""A thread that computes users for whom the event loop would take too long, each of them once.

Called in the event loop's thread. Invariant: a computation begins once for each key, however many callers wait for it,
and goes on for the others when one of them is cancelled.
"""

import asyncio
from collections.abc import Callable, Hashable, KeysView
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from typing import Final, NamedTuple

from service.models.fold_in.representation import UserRepresentation

Compute = Callable[[], UserRepresentation | None]
# With so many computations under way, none begins before a request asks for it.
_MOST_AHEAD: Final = 64


class _Pending(NamedTuple):
    key: Hashable
    future: asyncio.Future[UserRepresentation | None]


class UserWorker:
    """The computations that are under way; later callers share at most one of each user."""

    def __init__(self) -> None:
        self._pending: dict[str, _Pending] = {}

    def __repr__(self) -> str:
        return f"<UserWorker pending={len(self._pending)}>"

    @property
    def users(self) -> KeysView[str]:
        """The users who are computed."""
        return self._pending.keys()

    @property
    def is_busy(self) -> bool:
        """Whether too many users wait for the thread to compute another one ahead of a request."""
        return len(self._pending) >= _MOST_AHEAD

    def forget(self) -> None:
        """Share no computation that is under way with later callers; present callers still get its result."""
        self._pending.clear()

    async def computed(self, user_id: str, key: Hashable, compute: Compute) -> UserRepresentation | None:
        """Return what `compute` returns in the thread.

        Args:
            user_id: The user.
            key: What the result depends on besides the user; of the same key, the computation under way counts.
            compute: Pure.
        """
        pending = self._pending.get(user_id)
        if pending is None or pending.key != key:
            future = asyncio.get_running_loop().run_in_executor(self._thread, compute)
            pending = self._pending[user_id] = _Pending(key, future)
            future.add_done_callback(partial(self._done, user_id))
        return await asyncio.shield(pending.future)

    def _done(self, user_id: str, future: asyncio.Future[UserRepresentation | None]) -> None:
        pending = self._pending.get(user_id)
        if pending is not None and pending.future is future:
            del self._pending[user_id]

    @cached_property
    def _thread(self) -> ThreadPoolExecutor:
        # More threads would take the event loop's turns, not other cores': each holds the interpreter most of the time.
        return ThreadPoolExecutor(1, thread_name_prefix="users")
