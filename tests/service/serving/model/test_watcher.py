"""Replicas follow the active version."""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

from service.metrics import Metrics
from service.models.files import active_model
from service.models.publication import publication
from service.models.publication.publication import activate
from service.models.roles import Role
from service.models.snapshot import ModelSnapshot
from service.serving.model.store import ModelStore
from service.serving.model.watcher import Watcher

Publish = Callable[[Path, ModelSnapshot], str]
Make = Callable[..., ModelSnapshot]


@pytest.fixture
def store() -> ModelStore:
    return ModelStore()


@pytest.fixture
def watcher(tmp_path: Path, store: ModelStore) -> Watcher:
    return Watcher(tmp_path, store, 0.01, Metrics())


async def test_an_activated_version_is_swapped_in(
    tmp_path: Path, store: ModelStore, watcher: Watcher, make_snapshot: Make, publish_snapshot: Publish
) -> None:
    """An older one too: the rollback."""
    first = publish_snapshot(tmp_path, make_snapshot(seed=1))
    await watcher.check()
    assert store.version == first
    second = publish_snapshot(tmp_path, make_snapshot(seed=2))
    await watcher.check()
    assert store.version == second
    activate(tmp_path, first)
    await watcher.check()
    assert store.version == first


async def test_a_published_version_is_not_served_before_its_activation(
    tmp_path: Path, store: ModelStore, watcher: Watcher, make_snapshot: Make, publish_snapshot: Publish
) -> None:
    """Publication alone changes nothing."""
    first = publish_snapshot(tmp_path, make_snapshot(seed=1))
    publication.publish(tmp_path, make_snapshot(seed=2), data={}, measures={})
    await watcher.check()
    assert store.version == first


async def test_a_damaged_model_leaves_the_served_one_until_the_next_good_one(
    tmp_path: Path, store: ModelStore, watcher: Watcher, make_snapshot: Make, publish_snapshot: Publish
) -> None:
    """A refusal does not stop the watcher."""
    first = publish_snapshot(tmp_path, make_snapshot(seed=1))
    await watcher.check()
    bad = publish_snapshot(tmp_path, make_snapshot(seed=2))
    (tmp_path / bad / "item_factors.bin").write_bytes(b"damaged after activation")
    await watcher.check()
    assert store.version == first
    third = publish_snapshot(tmp_path, make_snapshot(seed=3))
    await watcher.check()
    assert store.version == third


async def test_an_unreadable_store_is_noticed_and_the_model_stays(
    tmp_path: Path, store: ModelStore, watcher: Watcher, make_snapshot: Make, publish_snapshot: Publish
) -> None:
    """The degradation level is `stale_model` until the store is back."""
    first = publish_snapshot(tmp_path, make_snapshot(seed=1))
    await watcher.check()
    (tmp_path / "ACTIVE").rename(tmp_path / "elsewhere")
    await watcher.check()
    assert (watcher.readable, store.version) == (False, first)
    (tmp_path / "elsewhere").rename(tmp_path / "ACTIVE")
    await watcher.check()
    assert (watcher.readable, store.version) == (True, first)


async def test_requests_see_one_model_while_models_are_swapped(
    tmp_path: Path, store: ModelStore, watcher: Watcher, make_snapshot: Make, publish_snapshot: Publish,
    await_until: Callable[..., Awaitable[None]],
) -> None:  # fmt: skip
    """The event loop is not blocked by loading, and the snapshot of a request stays unchanged."""
    publish_snapshot(tmp_path, make_snapshot(seed=0))
    await watcher.check()
    task = asyncio.create_task(watcher.run())
    for seed in range(1, 6):
        held = store.current()
        before = held.item_factors.copy()
        version = publish_snapshot(tmp_path, make_snapshot(seed=seed))
        await await_until(lambda version=version: store.version == version, what="the swap")
        np.testing.assert_array_equal(held.item_factors, before)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_refused_model_is_retried_while_nothing_is_served(
    tmp_path: Path, store: ModelStore, watcher: Watcher, make_snapshot: Make, publish_snapshot: Publish,
    await_until: Callable[..., Awaitable[None]],
) -> None:  # fmt: skip
    """A version repaired in place is found without another activation; until then the problem is reported."""
    version = publish_snapshot(tmp_path, make_snapshot(seed=1))
    path = tmp_path / version / "item_bias.bin"
    content = path.read_bytes()
    path.write_bytes(content[:-4])
    await watcher.check()
    assert (store.version, watcher.readable) == (None, True)
    assert watcher.problem.startswith(f"{version}: item_bias has")
    path.write_bytes(content)

    async def served() -> bool:
        await watcher.check()
        return store.version == version

    await await_until(served, what="the repaired version")
    assert watcher.problem == ""


async def test_a_hanging_store_is_abandoned_and_checked_again(
    tmp_path: Path, store: ModelStore, make_snapshot: Make, publish_snapshot: Publish, monkeypatch: pytest.MonkeyPatch,
    await_until: Callable[..., Awaitable[None]],
) -> None:  # fmt: skip
    """Each check ends within its time limit, few daemon threads wait, and the watcher recovers."""
    watcher = Watcher(tmp_path, store, 0.01, Metrics(), timeout_s=0.3, max_pause_s=0.01)
    version = publish_snapshot(tmp_path, make_snapshot(seed=1))
    healed = threading.Event()
    active_version = active_model.version

    def hanging(models_dir: Path, role: Role) -> str | None:
        healed.wait()
        return active_version(models_dir, role)

    monkeypatch.setattr(active_model, "version", hanging)

    def stuck() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "model-loader"]

    async def enough() -> bool:
        await watcher.check()
        assert (watcher.readable, store.version) == (False, None)
        return watcher.problem == f"The model store {tmp_path} does not answer." and len(stuck()) == 3

    await watcher.check()
    await await_until(enough, what="as many threads as may wait")
    await watcher.check()
    assert len(stuck()) == 3
    assert all(thread.daemon for thread in stuck())
    healed.set()

    async def served() -> bool:
        await watcher.check()
        return (watcher.readable, store.version, watcher.problem) == (True, version, "")

    await await_until(served, what="the model")


async def test_a_pipe_in_place_of_an_array_is_refused(
    tmp_path: Path, store: ModelStore, watcher: Watcher, make_snapshot: Make, publish_snapshot: Publish
) -> None:
    """Opening it would wait forever for a writer; the next model is served."""
    first = publish_snapshot(tmp_path, make_snapshot(seed=1))
    await watcher.check()
    second = publish_snapshot(tmp_path, make_snapshot(seed=2))
    (tmp_path / second / "item_factors.bin").unlink()
    os.mkfifo(tmp_path / second / "item_factors.bin")
    await watcher.check()
    assert store.version == first
    assert "item_factors cannot be opened: Not a regular file" in watcher.problem
    third = publish_snapshot(tmp_path, make_snapshot(seed=3))
    await watcher.check()
    assert store.version == third
