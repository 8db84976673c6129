"""Users of a model with a slow tower: computed by a thread when events come, and never an older user than asked for."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from service.live.live_state import LiveState
from service.live.live_users import LiveUser, LiveUsers
from service.models.fold_in.settings import NETWORK, FoldIn
from service.models.history.weights import HistoryWeights
from service.models.networks.inputs import InputTables, TowerOutput, UserInput
from service.models.networks.networks import Networks
from service.models.snapshot import ModelSnapshot
from telemetry.batch import Position
from telemetry.live.feed_entry import ErasedUser
from tests.support.live.live_events import MemorySnapshot, event

SEEN = ("rating", "purchase", "dismiss")


class CountingTower:
    """A user is how many items they have; the computation waits until it may end."""

    kind: ClassVar[str] = "test_counting"
    is_slow: ClassVar[bool] = True

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.may_end.set()
        self.threads: list[str] = []

    def tensors(self) -> dict[str, NDArray[Any]]:
        return {}

    def settings(self) -> dict[str, Any]:
        return {}

    @classmethod
    def of(cls, tensors: Any, settings: Any) -> "CountingTower":
        del tensors, settings
        return cls()

    def user(self, given: UserInput, tables: InputTables) -> TowerOutput:
        self.threads.append(threading.current_thread().name)
        self.may_end.wait(10)
        return TowerOutput(np.full(tables.input_factors.shape[1], given.history.rows.size, np.float32))


@pytest.fixture
def tower() -> CountingTower:
    return CountingTower()


@pytest.fixture
def model(make_snapshot: Callable[..., ModelSnapshot], tower: CountingTower) -> ModelSnapshot:
    return replace(
        make_snapshot(n_items=30), networks=Networks(tower), fold_in=FoldIn(NETWORK, HistoryWeights(window=20))
    )


@pytest.fixture
def state() -> LiveState:
    state = LiveState(100)
    state.load(MemorySnapshot(most_events=50))
    return state


def size_of(user: LiveUser | None) -> int:
    """Return how many items the tower saw."""
    assert user is not None
    assert user.representation is not None
    return int(user.representation.factors[0])


async def turns(n: int = 5) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


async def until_idle(users: LiveUsers) -> None:
    """Wait for all computations ahead of requests."""
    while users._ahead:
        await asyncio.gather(*users._ahead.values())
        await turns()


async def test_a_request_after_the_computation_looks_it_up(
    model: ModelSnapshot, tower: CountingTower, state: LiveState
) -> None:
    """Computed by the thread when the event comes; the list is that of `user`, and costs no computation."""
    users = LiveUsers(state, SEEN)
    state.accept([event(1, producer="own", user_id="new", item_id="i1")])
    users.compute_ahead(model, "new", None)
    await until_idle(users)
    assert len(tower.threads) == 1
    assert tower.threads[0].startswith("users")
    found = await users.computed(model, "new", None)
    assert size_of(found) == 1
    assert users.user(model, "new", None) is found
    assert len(tower.threads) == 1
    assert await users.computed(model, "nobody", None) is None


async def test_a_request_before_the_result_waits_for_the_same(
    model: ModelSnapshot, tower: CountingTower, state: LiveState
) -> None:
    users = LiveUsers(state, SEEN)
    tower.may_end.clear()
    state.accept([event(1, producer="own", user_id="new", item_id="i1")])
    users.compute_ahead(model, "new", None)
    await turns()
    request = asyncio.ensure_future(users.computed(model, "new", None))
    await turns()
    assert not request.done()
    tower.may_end.set()
    assert size_of(await request) == 1
    assert len(tower.threads) == 1


async def test_an_event_during_the_computation_counts_in_the_next_list(
    model: ModelSnapshot, tower: CountingTower, state: LiveState
) -> None:
    """The request before it gets the user of that moment; the one after it never gets the older user."""
    users = LiveUsers(state, SEEN)
    state.accept([event(1, producer="own", user_id="new", item_id="i1")])
    assert size_of(await users.computed(model, "new", None)) == 1
    tower.may_end.clear()
    state.accept([event(2, producer="own", user_id="new", item_id="i2")])
    before = asyncio.ensure_future(users.computed(model, "new", None))
    await turns()
    state.accept([event(3, producer="own", user_id="new", item_id="i3")])
    after = asyncio.ensure_future(users.computed(model, "new", None))
    await turns()
    tower.may_end.set()
    assert size_of(await before) == 2
    assert size_of(await after) == 3
    await until_idle(users)
    assert size_of(await users.computed(model, "new", None)) == 3


async def test_users_who_are_known_here_are_computed_when_the_feed_brings_an_event(
    model: ModelSnapshot, tower: CountingTower, state: LiveState
) -> None:
    """Others are left to the request that asks for them."""
    users = LiveUsers(state, SEEN)
    state.accept([event(1, producer="own", user_id="asked", item_id="i1")])
    await users.computed(model, "asked", None)
    state.apply(Position(1, 1), [event(2, user_id="asked", item_id="i2"), event(3, user_id="other", item_id="i2")])
    await until_idle(users)
    assert len(tower.threads) == 2
    assert size_of(await users.computed(model, "asked", None)) == 2
    assert len(tower.threads) == 2
    assert size_of(await users.computed(model, "other", None)) == 1
    assert len(tower.threads) == 3


async def test_many_events_of_a_user_are_one_computation(
    model: ModelSnapshot, tower: CountingTower, state: LiveState
) -> None:
    users = LiveUsers(state, SEEN)
    for seq in range(1, 11):
        state.accept([event(seq, producer="own", user_id="new", item_id=f"i{seq}")])
        users.compute_ahead(model, "new", None)
    await until_idle(users)
    assert len(tower.threads) == 1
    assert size_of(await users.computed(model, "new", None)) == 10


async def test_a_result_of_the_model_before_is_not_kept(
    model: ModelSnapshot, tower: CountingTower, state: LiveState
) -> None:
    """The request gets it, since its list is of that model."""
    users = LiveUsers(state, SEEN)
    tower.may_end.clear()
    state.accept([event(1, producer="own", user_id="new", item_id="i1")])
    before = asyncio.ensure_future(users.computed(model, "new", None))
    await turns()
    later = replace(model)
    after = asyncio.ensure_future(users.computed(later, "new", None))
    await turns()
    tower.may_end.set()
    assert size_of(await before) == size_of(await after) == 1
    assert len(tower.threads) == 2
    assert users.user(later, "new", None) is await after


async def test_an_erased_user_is_not_kept(model: ModelSnapshot, tower: CountingTower, state: LiveState) -> None:
    """An erasure during the computation leaves nothing behind."""
    users = LiveUsers(state, SEEN)
    tower.may_end.clear()
    state.accept([event(1, producer="own", user_id="new", item_id="i1")])
    request = asyncio.ensure_future(users.computed(model, "new", None))
    await turns()
    state.erase(ErasedUser("new", 2_000))
    tower.may_end.set()
    await request
    assert "kept=0" in repr(users)
    assert await users.computed(model, "new", None) is None
