"""A thread computes each user once, whoever waits for it."""

import asyncio
import threading

import numpy as np
import pytest

from service.live.user_worker import _MOST_AHEAD, UserWorker
from service.models.fold_in.representation import UserRepresentation


def user(number: float) -> UserRepresentation:
    return UserRepresentation(np.full(2, number, np.float32), 0.0, np.zeros(0, np.int32))


class Gate:
    """A computation that waits in the thread until it may end."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.calls: list[str] = []

    def compute(self, number: float) -> UserRepresentation:
        self.calls.append(threading.current_thread().name)
        self.open.wait(10)
        return user(number)


async def test_those_who_wait_for_the_same_share_a_computation() -> None:
    """In a thread of its own; another key is another computation, and the same later is begun anew."""
    worker, gate = UserWorker(), Gate()
    first, same = (asyncio.ensure_future(worker.computed("u", 1, lambda: gate.compute(1.0))) for _ in range(2))
    await asyncio.sleep(0)
    other = asyncio.ensure_future(worker.computed("u", 2, lambda: gate.compute(2.0)))
    await asyncio.sleep(0)
    assert list(worker.users) == ["u"]
    gate.open.set()
    assert (await first) is (await same)
    found = await other
    assert found is not None
    assert found.factors[0] == 2
    assert len(gate.calls) == 2
    assert all(name.startswith("users") for name in gate.calls)
    assert not worker.users
    await worker.computed("u", 2, lambda: gate.compute(2.0))
    assert len(gate.calls) == 3


async def test_one_who_leaves_stops_it_for_nobody_else() -> None:
    worker, gate = UserWorker(), Gate()
    leaves, stays = (asyncio.ensure_future(worker.computed("u", 1, lambda: gate.compute(1.0))) for _ in range(2))
    await asyncio.sleep(0)
    leaves.cancel()
    gate.open.set()
    assert (await stays) is not None
    with pytest.raises(asyncio.CancelledError):
        await leaves


async def test_it_says_when_it_has_enough_to_do() -> None:
    worker, gate = UserWorker(), Gate()
    waiting = []
    for number in range(_MOST_AHEAD):
        assert not worker.is_busy
        waiting.append(asyncio.ensure_future(worker.computed(f"u{number}", 1, lambda: gate.compute(1.0))))
        await asyncio.sleep(0)
    assert worker.is_busy
    gate.open.set()
    await asyncio.gather(*waiting)
    assert not worker.is_busy


async def test_an_error_reaches_those_who_wait() -> None:
    worker = UserWorker()

    def fails() -> UserRepresentation:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await worker.computed("u", 1, fails)
    assert not worker.users
