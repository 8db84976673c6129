"""Served lists made again, from the archive of a replica that took requests, events, item changes and a new model."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp.test_utils import TestClient, TestServer

from ops.commands import replay
from ops.console.progress import StageProgress
from service.config import Config
from service.errors import RunError
from service.lists.settings import ExplorationConfig
from service.metrics import Metrics
from service.models.files import artefact
from service.models.fold_in.settings import FoldIn
from service.models.history.weights import HistoryWeights
from service.models.items.record import ItemRecord
from service.models.items.records import ItemRecords
from service.models.snapshot import ModelSnapshot
from service.models.user_clusters import UserClusters
from service.replay.rebuilding import rests_on_raters
from service.serving.app import build_app
from service.serving.model.store import ModelStore
from service.serving.ranking.list_level import LEVELS
from service.serving.replica.context import ReplicaContext
from telemetry.batch import Position
from telemetry.events import ItemChange, decode
from telemetry.live.live_event import LIVE_TYPES, live_event
from telemetry.live.live_feed_reader import FeedBatch
from telemetry.producer import Producer
from telemetry.settings import LiveSettings
from telemetry.stream.memory_stream import MemoryServer, MemoryStream
from telemetry.wal.slot_inspection import spooled_lines
from tests.support.live.consumer_site import SHIP, Job
from tests.support.networks import tiny_networks
from tests.support.replicas.replica_app import Client, body

N_ITEMS = 60


def rich(made: ModelSnapshot) -> ModelSnapshot:
    """A model that folds in, with attributes and clusters."""
    records = [ItemRecord(f"Title {row}", {"genres": ["Drama" if row % 3 else "Comedy"]}) for row in range(N_ITEMS)]
    listed = np.random.default_rng(2).permutation(N_ITEMS)[:40].reshape(2, 20).astype(np.int32)
    return replace(
        made,
        fold_in=FoldIn("decayed_sum", HistoryWeights(half_life=2.0, window=20)),
        item_bias=np.zeros_like(made.item_bias),
        item_records=ItemRecords.of(records),
        user_clusters=UserClusters(np.arange(len(made.users)).astype(np.uint8) % 2, listed),
    )


class Installation:
    """One replica's application, and a consumer that archives what it sends."""

    def __init__(self, config: Config, context: ReplicaContext, client: Client, job: Job) -> None:
        self.config, self.context, self.client, self.job = config, context, client, job

    async def archived(self) -> None:
        """Wait until the archive has every event."""
        assert await self.context.producer.drain(20, archived=True) == 0

    async def recommend(self, **fields: Any) -> Any:
        return await body(self.client, "POST", "/v1/recommendations", 200, json=fields)


@pytest.fixture
async def installation(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    make_snapshot: Callable[..., ModelSnapshot],
    publish_snapshot: Callable[..., str],
) -> AsyncIterator[Installation]:
    live = LiveSettings(impressions=getattr(request, "param", False))
    config = Config(home=tmp_path, exploration=ExplorationConfig(share=0.3), live=live)
    version = publish_snapshot(config.models_dir, rich(make_snapshot(n_items=N_ITEMS)))
    server = MemoryServer()
    producer = Producer(config.spool_dir, 0, SHIP, MemoryStream(server))
    context = ReplicaContext(config, ModelStore(artefact.load(config.models_dir / version)), producer, Metrics())
    shipping = asyncio.create_task(producer.run())
    job = Job(MemoryStream(server), config.archive_dir)
    async with TestClient(TestServer(build_app(context))) as client:
        yield Installation(config, context, client, job)
    await job.stop()
    shipping.cancel()
    await asyncio.gather(shipping, return_exceptions=True)
    producer.close()


async def use(installation: Installation, rng: np.random.Generator, n: int) -> None:
    """Take n random requests of users, known and unknown, with events between them."""
    for _ in range(n):
        user = f"u{rng.integers(0, 10)}"
        if rng.random() < 0.4:
            event: dict[str, Any] = {"user_id": user, "item_id": f"i{rng.integers(0, N_ITEMS + 5)}"}
            event |= {"type": "rating", "value": float(rng.integers(1, 6))} if rng.random() < 0.6 else {"type": "click"}
            await body(installation.client, "POST", "/v1/events", 202, json={"events": [event]})
        query: dict[str, Any] = {"user_id": user, "n": int(rng.integers(1, 30)), "offset": int(rng.integers(0, 3))}
        options: dict[str, Any] = {
            "exclude": ["i1", "i2", "nothing"],
            "filter": 'genre == "Comedy"',
            "diversity": 0.5,
            "deadline_ms": 50,
            "pins": [{"item_id": "i7", "position": 1}],
            "session": ["i4", {"item_id": "i9", "type": "rating", "value": 4}, "i4"],
            "boosts": [{"filter": 'genre == "Drama"', "factor": 3}],
            "user_features": {"age": int(rng.integers(18, 45)), "favourite_genres": ["Comedy"], "town": ["Rome"]},
            "seeds": ["i4", "i9", "nothing"],
            "explain": 3,
        }
        for name in rng.permutation(list(options))[: rng.integers(0, 3)]:
            query[str(name)] = options[str(name)]
        if "seeds" in query:
            query.pop("session", None)
            query.pop("user_features", None)
        answer = await installation.recommend(**query)
        if answer["next_page_token"] is not None and rng.random() < 0.3:
            await installation.recommend(**{**query, "page_token": answer["next_page_token"]})
    await body(installation.client, "GET", "/v1/items/i5/similar?n=4", 200)
    await body(installation.client, "GET", "/v1/popular?n=4", 200)


async def like_a_new_item(installation: Installation, rng: np.random.Generator) -> None:
    """Have users act on a new item, once more while the row that they refined is served, and ask for lists."""
    keeper = installation.context.items
    for users in (("u1", "u2", "unknown"), ("u2", "u3", "u4")):
        likes = [{"user_id": user, "item_id": "new", "type": "click"} for user in users]
        events = [*likes, {"user_id": "u2", "item_id": "new", "type": "rating", "value": len(users) + 1.0}]
        await body(installation.client, "POST", "/v1/events", 202, json={"events": events})
        # As the feed delivers them, once they are archived.
        records = [decode(line) for _slot, line in spooled_lines(installation.config.spool_dir)]
        delivered = [found for record in records if (found := live_event(record, LIVE_TYPES)) is not None]
        marks: dict[str, Position] = {}
        for _, producer, epoch, seq in records:
            marks[producer] = max(Position(epoch, seq), marks.get(producer, Position(0, 0)))
        changes = [record for record in records if isinstance(record.event, ItemChange)]
        await keeper.follow(FeedBatch(events=delivered, item_changes=changes, marks=marks))
        await keeper.build()
        await use(installation, rng, 10)


async def test_every_served_list_is_made_again(
    installation: Installation, make_snapshot: Callable[..., ModelSnapshot], publish_snapshot: Callable[..., str]
) -> None:
    """Before and after item changes and a swap, at every level, explored or not; to the last digit."""
    rng = np.random.default_rng(4)
    await use(installation, rng, 40)
    client = installation.client
    await body(client, "PUT", "/v1/items/i3", 202, json={"hidden": True})
    await body(client, "PUT", "/v1/items/new", 202, json={"title": "New", "attributes": {"genres": ["Comedy"]}})
    await use(installation, rng, 20)
    await like_a_new_item(installation, rng)
    for level in LEVELS[:2]:
        installation.context.level_costs.observe(level, 1.0)
    await use(installation, rng, 20)
    other = publish_snapshot(installation.config.models_dir, rich(make_snapshot(n_items=N_ITEMS, seed=9)))
    installation.context.store.swap(artefact.load(installation.config.models_dir / other))
    await use(installation, rng, 20)
    await installation.archived()
    with StageProgress() as stages:
        replays = replay.replay(installation.config, None, 1000, 0, stages)
        assert len(replays) > 100
        assert [each.rebuilt.problem for each in replays if not each.matches] == []
        assert {each.event.degraded for each in replays} >= {None, "cluster"}
        assert any(each.event.request is not None and "exploration" in each.event.request for each in replays)
        assert any(each.event.catalogue_watermark for each in replays)
        assert sum(rests_on_raters(each.event.catalogue_watermark) for each in replays) >= 20
        assert sum(each.event.events_applied > 0 for each in replays) > 20
        # A state of one event is another one, so that the comparison is worth something.
        short = replace(installation.config, live=replace(installation.config.live, events_per_user=1))
        assert not all(each.matches for each in replay.replay(short, None, 1000, 0, stages))


async def test_a_list_that_answers_to_features_is_made_again(
    installation: Installation, make_snapshot: Callable[..., ModelSnapshot], publish_snapshot: Callable[..., str]
) -> None:
    """By the tower and the feature encoder of the published version."""
    with tiny_networks.registered():
        model = tiny_networks.with_features(make_snapshot(n_items=N_ITEMS))
        version = publish_snapshot(installation.config.models_dir, model)
        installation.context.store.swap(artefact.load(installation.config.models_dir / version))
        event = {"user_id": "u2", "item_id": "i9", "type": "click"}
        await body(installation.client, "POST", "/v1/events", 202, json={"events": [event]})
        lists: list[Any] = []
        for user in ({"user_id": "u1"}, {"user_id": "u2"}, {"user_id": "nobody"}, {}):
            for said in ({"age": 20}, {"age": 40, "gender": "M"}, {"age": None, "gender": "X", "shoe_size": 44}):
                options: dict[str, Any] = {"user_features": said, "n": 9}
                lists.append((await installation.recommend(**user, **options))["items"])
                await installation.recommend(**user, **options, session=["i8"], diversity=0.2)
        await installation.archived()
        with StageProgress() as stages:
            replays = replay.replay(installation.config, None, 100, 0, stages)
    assert len(replays) == 24
    assert [each.rebuilt.problem for each in replays if not each.matches] == []
    # The features decide: no two lists of one user are alike.
    for first, second, third in zip(lists[::3], lists[1::3], lists[2::3], strict=True):
        assert first != second
        assert third not in (first, second)


async def test_one_list_is_shown_beside_the_one_of_today(
    installation: Installation,
    publish_snapshot: Callable[..., str],
    make_snapshot: Callable[..., ModelSnapshot],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With titles, and with what the newer model and the newer events change."""
    answer = await installation.recommend(user_id="u1", n=3)
    publish_snapshot(installation.config.models_dir, rich(make_snapshot(n_items=N_ITEMS, seed=9)))
    await installation.archived()
    monkeypatch.setenv("RECOLLECT_HOME", str(installation.config.home))
    name = answer["recommendation_id"]
    assert replay.command(name, as_json=True) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["matches"] is True
    assert [row["item_id"] for row in printed["rebuilt"]] == [item["item_id"] for item in answer["items"]]
    assert printed["today"]["items"] != printed["rebuilt"]
    assert replay.command(name, as_json=False) == 0
    text = capsys.readouterr().out
    assert "The list made again is the same." in text
    assert f"Title {answer['items'][0]['item_id'][1:]}" in text
    assert replay.command(None, sample=5, as_json=False) == 0
    assert "1 of 1 lists are the same" in capsys.readouterr().out
    with pytest.raises(RunError, match="has no list 'nothing'"):
        replay.command("nothing")


async def test_a_list_whose_evidence_is_gone_says_so(installation: Installation) -> None:
    """A removed model is named."""
    answer = await installation.recommend(user_id="u1", n=3)
    await installation.archived()
    directory = installation.config.models_dir / answer["model"]
    directory.rename(directory.with_name("elsewhere"))
    with StageProgress() as stages:
        (found,) = replay.replay(installation.config, None, 5, 0, stages)
    assert not found.matches
    assert answer["model"] in found.rebuilt.problem


async def test_impressions_push_no_event_out_of_a_list(installation: Installation) -> None:
    """They are archived like all feedback, and not among a user's last events."""
    acted = [{"user_id": "u1", "item_id": f"i{row}", "type": "rating", "value": 4} for row in range(40)]
    shown = [{"user_id": "u1", "item_id": f"i{row % N_ITEMS}", "type": "impression"} for row in range(90)]
    await body(installation.client, "POST", "/v1/events", 202, json={"events": [*acted, *shown]})
    assert (await installation.recommend(user_id="u1", n=3))["freshness"]["events_applied"] == 40
    await installation.archived()
    with StageProgress() as stages:
        (found,) = replay.replay(installation.config, None, 5, 0, stages)
    assert found.matches, found.rebuilt.problem


@pytest.mark.parametrize("installation", [True], indirect=True)
async def test_a_list_that_impressions_sank_is_made_again(installation: Installation) -> None:
    """Of users who acted and users who did not, known and unknown; the factor is in the request."""
    client = installation.client
    for user_id in ("u1", "u2", "nobody"):
        plain = [item["item_id"] for item in (await installation.recommend(user_id=user_id, n=5))["items"]]
        events = [{"user_id": user_id, "item_id": item_id, "type": "impression"} for item_id in plain[:2]]
        if user_id == "u2":
            events.append({"user_id": user_id, "item_id": "i9", "type": "click"})
        await body(client, "POST", "/v1/events", 202, json={"events": [*events, events[0]]})
        await installation.recommend(user_id=user_id, n=5, impression_factor=0.1)
        await installation.recommend(user_id=user_id, n=5, impression_factor=0.1, session=["i8"], diversity=0.2)
    await installation.archived()
    with StageProgress() as stages:
        replays = replay.replay(installation.config, None, 100, 0, stages)
    assert len(replays) == 9
    assert [each.rebuilt.problem for each in replays if not each.matches] == []
