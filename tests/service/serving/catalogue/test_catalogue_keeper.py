"""The served catalogue follows the feed of item changes and what users do with new items."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from service.models.items.record import ItemRecord
from service.models.items.records import ItemRecords
from service.models.snapshot import ModelSnapshot
from service.serving.catalogue import keeper as catalogue_keeper
from service.serving.catalogue.keeper import CatalogueKeeper
from service.serving.model.store import ModelStore
from telemetry.batch import EventPosition, Position
from telemetry.events import Record, encode
from telemetry.live.column_file import write_columns
from telemetry.live.event_layer import write_layer
from telemetry.live.feed_entry import ErasedUser
from telemetry.live.live_event import LIVE_TYPES, LiveEvent
from telemetry.live.live_feed_reader import FeedBatch
from telemetry.live.state_manifest import StateManifest
from telemetry.live.state_snapshot import StateSnapshot
from tests.support.sample_events import item_change


@pytest.fixture
def store(make_snapshot: Callable[..., ModelSnapshot]) -> ModelStore:
    records = [ItemRecord(f"T{row}", {"genres": ["Drama" if row % 2 else "Comedy"]}) for row in range(30)]
    model = make_snapshot(n_items=30)
    return ModelStore(replace(model, item_bias=np.zeros(30, np.float32), item_records=ItemRecords.of(records)))


def put(item_id: str, seq: int, **changes: object) -> Record:
    changes = {"attributes": None, "available_until": None, "title": None, **changes}
    return Record(item_change(item_id=item_id, **changes), "p", 1, seq)


def click(user_id: str, item_id: str, seq: int) -> LiveEvent:
    return LiveEvent(
        user_id, item_id, "click", None, 1_700_000_000_000, 1_700_000_000_000, "", EventPosition("q", 1, seq)
    )


def state(directory: Path, records: list[Record], events: list[LiveEvent], at: Position) -> StateSnapshot:
    lines = b"".join(encode(*record) for record in records)
    write_columns(directory / "items", [("items", [np.frombuffer(lines, np.uint8)])], {})
    write_layer(directory / "events", events, 100)
    StateManifest("a", at, {"p": Position(1, 9)}, 0, 365, 100, LIVE_TYPES, layers=("events",), items="items").write(
        directory
    )
    return StateSnapshot.open(directory)


async def test_a_change_of_a_known_item_counts_at_once(store: ModelStore) -> None:
    """Before anything is built, and the columns of filters follow with the build."""
    keeper = CatalogueKeeper(store)
    await keeper.follow(FeedBatch(item_changes=[put("i3", 1, hidden=True, attributes={"genres": ["War"]})]))
    assert store.catalogue.unavailable_rows(0.0).tolist() == [3]
    column = store.catalogue.column("genre")
    assert column is not None
    assert column.rows_of("War").size == 0
    await keeper.build()
    column = store.catalogue.column("genre")
    assert column is not None
    assert column.rows_of("War").tolist() == [3]
    assert (store.catalogue.watermark, store.current() is store.model) == ("p:1-1", True)


async def test_the_state_of_a_snapshot_is_taken(store: ModelStore, tmp_path: Path) -> None:
    """Changes and actions on new items; one that the feed has passed is not read again."""
    keeper = CatalogueKeeper(store)
    records = [put("new", 1, attributes={"genres": ["Drama"]}), put("i1", 2, hidden=True)]
    events = [click(f"u{user}", "new", user) for user in range(4)] + [click("u1", "i2", 9)]
    snapshot = state(tmp_path, records, events, Position(3, 4))
    await keeper.follow(FeedBatch(snapshot=snapshot, position=Position(3, 4)))
    await keeper.build()
    assert store.current().items.id_of[30:] == ["new"]
    assert store.current().popularity[30] == 4
    assert store.catalogue.unavailable_rows(0.0).tolist() == [1]
    await keeper.follow(FeedBatch(item_changes=[put("i1", 3)], position=Position(3, 5)))
    assert store.catalogue.unavailable_rows(0.0).size == 0
    stale = state(tmp_path, [put("i5", 4, hidden=True)], [], Position(3, 5))
    await keeper.follow(FeedBatch(snapshot=stale, position=Position(3, 5)))
    assert store.catalogue.unavailable_rows(0.0).size == 0


async def test_a_snapshot_that_comes_before_the_model(store: ModelStore, tmp_path: Path) -> None:
    """What users did with new items is read once there is a model, and until then no list rests on a part of it."""
    model = store.model
    empty = ModelStore()
    keeper = CatalogueKeeper(empty)
    events = [click(f"u{user}", item, 10 * user + len(item)) for user in range(4) for item in ("new", "i3")]
    snapshot = state(tmp_path, [put("new", 1, attributes={"genres": ["Drama"]})], events, Position(3, 4))
    await keeper.follow(FeedBatch(snapshot=snapshot, position=Position(3, 4)))
    await keeper.follow(FeedBatch(events=[click("u5", item, 9) for item in ("new", "i3")], position=Position(3, 5)))
    empty.swap(model, keeper.builder()(model))
    assert empty.current().popularity[30] == 0
    assert empty.catalogue.raters_watermark == ""
    running = asyncio.create_task(keeper.run())
    try:
        async with asyncio.timeout(20):
            while empty.current().popularity[30] != 5:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
    finally:
        running.cancel()
    assert empty.catalogue.raters_watermark.startswith("p:1-9~5:")


async def test_a_user_who_is_erased_before_a_snapshot_is_read_counts_no_more(store: ModelStore, tmp_path: Path) -> None:
    """The snapshot still has the user's actions, and is read once there is a model."""
    model, empty = store.model, ModelStore()
    keeper = CatalogueKeeper(empty)
    records = [put("new", 1, attributes={"genres": ["Drama"]})]
    snapshot = state(tmp_path, records, [click(f"u{user}", "new", user) for user in range(4)], Position(3, 4))
    await keeper.follow(FeedBatch(snapshot=snapshot, position=Position(3, 4)))
    await keeper.follow(FeedBatch(erased=[ErasedUser("u0", 10**15)], position=Position(3, 5)))
    empty.swap(model, keeper.builder()(model))
    running = asyncio.create_task(keeper.run())
    try:
        async with asyncio.timeout(20):
            while empty.catalogue.raters_watermark == "":  # noqa: ASYNC110
                await asyncio.sleep(0.005)
    finally:
        running.cancel()
    assert empty.current().popularity[30] == 3


async def test_a_damaged_file_of_items_stops_nothing(store: ModelStore, tmp_path: Path) -> None:
    """The feed goes on."""
    keeper = CatalogueKeeper(store)
    snapshot = state(tmp_path, [], [], Position(3, 4))
    lines = np.frombuffer(b"{}\n", np.uint8)
    write_columns(tmp_path / "items", [("items", [lines])], {})
    snapshot = StateSnapshot.open(tmp_path)
    await keeper.follow(FeedBatch(snapshot=snapshot, item_changes=[put("i3", 1, hidden=True)]))
    assert store.catalogue.unavailable_rows(0.0).tolist() == [3]


async def test_actions_on_new_items_are_built_in_after_a_while(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gathered, so that a stream of events builds seldom; so is an erasure alone, and the user no longer counts."""
    monkeypatch.setattr(catalogue_keeper, "_GATHER_S", 0.01)
    keeper = CatalogueKeeper(store)
    await keeper.follow(FeedBatch(item_changes=[put("new", 1, attributes={"genres": ["Drama"]})]))
    running = asyncio.create_task(keeper.run())
    try:
        events = [click(f"u{user}", item, user) for user in range(5) for item in ("new", "i3", "unwritten")]
        await keeper.follow(FeedBatch(events=events))
        async with asyncio.timeout(20):
            while len(store.current().items) == 30 or store.current().popularity[30] != 5:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            await keeper.follow(FeedBatch(erased=[ErasedUser("u0", 10**15)]))
            while store.current().popularity[30] != 4:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        assert store.current().items.id_of[30:] == ["new"]
    finally:
        running.cancel()


async def test_a_model_that_cannot_be_built_leaves_the_served_one(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is logged, and the next change tries again."""
    keeper = CatalogueKeeper(store)

    def fail(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(catalogue_keeper, "ServedModel", fail)
        await keeper.follow(FeedBatch(item_changes=[put("new", 1)]))
        await keeper.build()
    assert len(store.current().items) == 30
    await keeper.build()
    assert len(store.current().items) == 31
