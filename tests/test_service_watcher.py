"""Replicas follow what is activated, and only that."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

from service.metrics import Metrics
from service.models import artefact
from service.models.snapshot import ModelSnapshot
from service.publication import activate
from service.store import ModelStore
from service.watcher import Watcher

Publish = Callable[[Path, ModelSnapshot], str]
Make = Callable[..., ModelSnapshot]


@pytest.fixture
def store() -> ModelStore:
    return ModelStore()


@pytest.fixture
def watcher(tmp_path: Path, store: ModelStore) -> Watcher:
    return Watcher(tmp_path, store, 0.01, Metrics())


async def test_an_activated_model_is_swapped_in_and_a_rollback_too(
    tmp_path: Path, store: ModelStore, watcher: Watcher, make_snapshot: Make, publish_snapshot: Publish
) -> None:
    """Whatever ACTIVE names is served, newer or older."""
    first = publish_snapshot(tmp_path, make_snapshot(seed=1))
    await watcher.look()
    assert store.version == first
    second = publish_snapshot(tmp_path, make_snapshot(seed=2))
    await watcher.look()
    assert store.version == second
    activate(tmp_path, first)
    await watcher.look()
    assert store.version == first


async def test_a_published_but_not_activated_model_is_not_served(
    tmp_path: Path, store: ModelStore, watcher: Watcher, make_snapshot: Make, publish_snapshot: Publish
) -> None:
    """Publishing alone changes nothing."""
    first = publish_snapshot(tmp_path, make_snapshot(seed=1))
    artefact.publish(tmp_path, make_snapshot(seed=2), data={}, measures={})
    await watcher.look()
    assert store.version == first


async def test_a_damaged_model_leaves_the_old_one_and_the_next_good_one_is_taken(
    tmp_path: Path, store: ModelStore, watcher: Watcher, make_snapshot: Make, publish_snapshot: Publish
) -> None:
    """A refusal is no dead end."""
    first = publish_snapshot(tmp_path, make_snapshot(seed=1))
    await watcher.look()
    bad = publish_snapshot(tmp_path, make_snapshot(seed=2))
    (tmp_path / bad / "item_factors.bin").write_bytes(b"damaged after activation")
    await watcher.look()
    assert store.version == first
    third = publish_snapshot(tmp_path, make_snapshot(seed=3))
    await watcher.look()
    assert store.version == third


async def test_a_store_that_cannot_be_read_is_noticed_and_the_model_stays(
    tmp_path: Path, store: ModelStore, watcher: Watcher, make_snapshot: Make, publish_snapshot: Publish
) -> None:
    """The rung `stale_model` shows it; it ends when the store is back."""
    first = publish_snapshot(tmp_path, make_snapshot(seed=1))
    await watcher.look()
    (tmp_path / "ACTIVE").rename(tmp_path / "elsewhere")
    await watcher.look()
    assert (watcher.readable, store.version) == (False, first)
    (tmp_path / "elsewhere").rename(tmp_path / "ACTIVE")
    await watcher.look()
    assert (watcher.readable, store.version) == (True, first)


async def test_requests_see_one_model_while_models_are_swapped(
    tmp_path: Path, store: ModelStore, watcher: Watcher, make_snapshot: Make, publish_snapshot: Publish,
    await_until: Callable[..., Awaitable[None]],
) -> None:  # fmt: skip
    """The loop goes on turning while a model is loaded, and what a request holds stays whole."""
    publish_snapshot(tmp_path, make_snapshot(seed=0))
    await watcher.look()
    task = asyncio.create_task(watcher.run())
    for seed in range(1, 6):
        held = store.current()
        before = held.item_factors.copy()
        version = publish_snapshot(tmp_path, make_snapshot(seed=seed))
        await await_until(lambda version=version: store.version == version, what="the swap")
        np.testing.assert_array_equal(held.item_factors, before)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
