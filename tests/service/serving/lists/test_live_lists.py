"""Lists that answer to what the user just did, on the real application of one replica."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from aiohttp.test_utils import TestClient, TestServer
from scipy.sparse import csr_array

from service.models.fold_in.fold_in import fold_in
from service.models.fold_in.settings import NETWORK, FoldIn
from service.models.history.user_history import CLICK, RATING, UserHistory
from service.models.history.weights import HistoryWeights
from service.models.neighbourhood import Neighbourhood
from service.models.networks.networks import Networks
from service.models.networks.sequence import SequenceTower
from service.models.ranking import scoring
from service.models.snapshot import ModelSnapshot
from service.serving.app import build_app
from service.serving.replica.context import ReplicaContext
from telemetry.live.state_watermark import parse_watermark
from telemetry.pseudonym import Pseudonymiser
from telemetry.settings import LiveSettings
from tests.support.networks.small_transformers import tensors
from tests.support.replicas.replica_app import Client, body, recorded_events

WEIGHTS = HistoryWeights(half_life=3.0)


def with_factors(made: ModelSnapshot) -> ModelSnapshot:
    return replace(made, fold_in=FoldIn("decayed_sum", WEIGHTS), item_bias=np.zeros_like(made.item_bias))


def with_neighbours(made: ModelSnapshot) -> ModelSnapshot:
    near = made.item_factors @ made.item_factors.T
    np.fill_diagonal(near, 0)
    return replace(
        made,
        user_factors=made.user_factors[:, :0],
        item_factors=made.item_factors[:, :0],
        item_bias=np.zeros_like(made.item_bias),
        neighbourhood=Neighbourhood("items", "sum", "seen", csr_array(near)),
        fold_in=FoldIn("neighbour_sum", WEIGHTS),
    )


def with_transformer(made: ModelSnapshot) -> ModelSnapshot:
    """Its users are computed in a thread."""
    rng = np.random.default_rng(0)
    weights = tensors(rng, width=made.n_factors, n_blocks=2, n_heads=1, window=50, gated=True)
    return replace(
        made,
        networks=Networks(SequenceTower.of(weights, {"n_blocks": 2, "n_heads": 1})),
        fold_in=FoldIn(NETWORK, HistoryWeights(window=50)),
        item_bias=np.zeros_like(made.item_bias),
    )


@pytest.fixture(params=[with_factors, with_neighbours, with_transformer])
def model(
    request: pytest.FixtureRequest, context: ReplicaContext, make_snapshot: Callable[..., ModelSnapshot]
) -> ModelSnapshot:
    """The served model, which folds users in."""
    made: ModelSnapshot = request.param(make_snapshot(n_items=60))
    context.store.swap(made)
    return made


async def report(client: Client, user_id: str, *rows: dict[str, Any]) -> None:
    events = [{"user_id": user_id, "type": "rating", "value": 5 if "type" not in row else None, **row} for row in rows]
    await body(client, "POST", "/v1/events", 202, json={"events": events})


async def list_of(client: Client, user_id: str, n: int = 10) -> Any:
    return await body(client, "GET", f"/v1/recommendations/{user_id}?n={n}", 200)


def ids(answer: Any) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


async def test_the_next_list_answers_to_an_event(client: Client, context: ReplicaContext, model: ModelSnapshot) -> None:
    """What was rated is gone, the rest is ordered anew, and answer and served event say which events count."""
    before = await list_of(client, "u1", 20)
    first = ids(before)[0]
    await report(client, "u1", {"item_id": first, "ts": "2026-11-21T01:02:03Z"})
    after = await list_of(client, "u1", 20)
    assert first not in ids(after)
    assert ids(after) != ids(before)[1:] + ids(after)[-1:]
    assert {item["source"] for item in after["items"]} == {"personal"}
    assert before["freshness"] == {"as_of": model.data_as_of, "events_applied": 0}
    assert after["freshness"] == {"as_of": "2026-11-21T01:02:03.000Z", "events_applied": 1}
    (_, event, served) = recorded_events(context)
    assert (served["events_applied"], served["request"]) == (1, {"n": 20})
    watermark = parse_watermark(served["state_watermark"])
    position = (event["producer"], event["epoch"], event["seq"])
    assert [(one.event_id, one.position) for one in watermark.pending] == [(event["event_id"], position)]
    assert (await list_of(client, "u2"))["freshness"]["events_applied"] == 0


async def test_a_new_user_gets_a_personal_list(client: Client, model: ModelSnapshot) -> None:
    """Of the model's fold-in of the reported history, with the last event last, and without what was seen."""
    assert {item["source"] for item in (await list_of(client, "new"))["items"]} == {"popular"}
    await report(client, "new", {"item_id": "i3"}, {"item_id": "i9", "type": "click"}, {"item_id": "i4", "value": 2})
    answer = await list_of(client, "new", 7)
    rows, types = np.array([3, 9, 4], np.int32), np.array([RATING, CLICK, RATING], np.uint8)
    user = fold_in(model, UserHistory(rows, np.array([5, 4, 2], np.float32), types))
    assert user is not None
    (expected,) = scoring.personal(model, [scoring.TopNRequest(0, 7, user=user._replace(seen=rows[[0, 2]]))])
    assert ids(answer) == [model.items.id_of[row] for row in expected.rows.tolist()]
    assert [item["score"] for item in answer["items"]] == expected.scores.round(6).tolist()
    assert answer["freshness"]["events_applied"] == 3


async def test_views_and_clicks_leave_items_in_lists(client: Client, model: ModelSnapshot) -> None:
    """Ratings, purchases and dismissals take them out."""
    for type_, stays in (("view", True), ("click", True), ("purchase", False), ("dismiss", False)):
        user = f"user-{type_}"
        await report(client, user, {"item_id": "i7", "type": type_})
        assert ("i7" in ids(await list_of(client, user, 60))) is stays


@pytest.mark.parametrize("user_id", ["u1", "new"])
async def test_a_model_that_cannot_fold_in_leaves_out_what_was_seen(client: Client, user_id: str) -> None:
    """The order of the rest stays."""
    before = await list_of(client, user_id, 20)
    await report(client, user_id, {"item_id": ids(before)[2]})
    after = await list_of(client, user_id, 19)
    assert ids(after) == [id_ for id_ in ids(before) if id_ != ids(before)[2]]
    assert after["freshness"]["events_applied"] == 1


async def test_what_says_nothing_changes_nothing(client: Client, model: ModelSnapshot) -> None:
    """Impressions, and items that the model does not know."""
    before = await list_of(client, "u1")
    await report(client, "u1", {"item_id": ids(before)[0], "type": "impression"}, {"item_id": "unheard of"})
    after = await list_of(client, "u1")
    assert (after["items"], after["freshness"]) == (before["items"], before["freshness"])


async def test_the_same_event_sent_twice_counts_once(client: Client, model: ModelSnapshot) -> None:
    """By its id, within a request and between two."""
    row = {"item_id": "i8", "event_id": "event-0001", "ts": "2026-11-21T01:02:03Z"}
    await report(client, "new", row, row)
    await report(client, "new", row)
    assert (await list_of(client, "new"))["freshness"]["events_applied"] == 1


async def test_a_new_model_reflects_the_events_too(client: Client, context: ReplicaContext) -> None:
    """They are folded into whatever model is served; items are found by their ids."""
    model = with_factors(context.store.current())
    context.store.swap(model)
    await report(client, "new", {"item_id": "i8"})
    before = await list_of(client, "new")
    context.store.swap(replace(model, item_factors=-model.item_factors))
    turned = await list_of(client, "new")
    assert ids(turned) == ids(before)  # Both sides of each product changed their sign.
    context.store.swap(replace(model, item_factors=np.roll(model.item_factors, 1, axis=0)))
    assert ids(await list_of(client, "new")) != ids(before)
    assert "i8" not in ids(await list_of(client, "new", 60))


async def test_pseudonyms_have_live_events(client: Client, context: ReplicaContext, model: ModelSnapshot) -> None:
    """The state knows users as telemetry does."""
    hidden = replace(context, pseudonyms=Pseudonymiser(b"k" * 32))
    async with TestClient(TestServer(build_app(hidden))) as other:
        await report(other, "u1", {"item_id": "i8"})
        assert (await list_of(other, "u1"))["freshness"]["events_applied"] == 1
    assert hidden.live.state.user("u1") is None
    assert hidden.live.state.user(hidden.pseudonyms.pseudonym("u1")) is not None


async def test_an_erased_user_is_new(client: Client, model: ModelSnapshot) -> None:
    """Events from before the erasure are gone at once; later ones count."""
    await report(client, "u1", {"item_id": "i8"})
    await body(client, "DELETE", "/v1/users/u1", 202)
    erased = await list_of(client, "u1")
    assert {item["source"] for item in erased["items"]} == {"popular"}
    assert erased["freshness"]["events_applied"] == 0
    await report(client, "u1", {"item_id": "i9"})
    again = await list_of(client, "u1", 60)
    assert again["freshness"]["events_applied"] == 1
    assert "i8" in ids(again)
    assert "i9" not in ids(again)


@pytest.mark.usefixtures("client")
@pytest.mark.parametrize("user_id", ["u1", "nobody"])
async def test_what_was_shown_in_vain_sinks(
    context: ReplicaContext, make_snapshot: Callable[..., ModelSnapshot], user_id: str
) -> None:
    """Once for each impression, until the user acts on the item; only where asked for and where impressions count."""
    context = replace(context, config=replace(context.config, live=LiveSettings(impressions=True)))
    # Without negative scores, so that a factor is what the score is multiplied by.
    model = replace(with_factors(make_snapshot(n_items=60)), global_mean=1000.0)
    context.store.swap(model)
    async with TestClient(TestServer(build_app(context))) as client:
        before = (await list_of(client, user_id, 60))["items"]
        scores = {item["item_id"]: item["score"] for item in before}
        first, second = before[0]["item_id"], before[1]["item_id"]
        shown = [{"item_id": item_id, "type": "impression"} for item_id in (first, second, first)]
        await report(client, user_id, *shown)
        assert (await list_of(client, user_id, 60))["items"] == before
        wanted = {"user_id": user_id, "n": 60, "impression_factor": 0.5}
        sunk = await body(client, "POST", "/v1/recommendations", 200, json=wanted)
        found = {item["item_id"]: item["score"] for item in sunk["items"]}
        assert found[first] == pytest.approx(scores[first] / 4)
        assert found[second] == pytest.approx(scores[second] / 2)
        assert all(found[item_id] == score for item_id, score in scores.items() if item_id not in {first, second})
        assert sunk["freshness"]["events_applied"] == 0
        # A setting makes it the default.
        by_default = replace(context.config, live_lists=replace(context.config.live_lists, impression_factor=0.5))
        async with TestClient(TestServer(build_app(replace(context, config=by_default)))) as other:
            await report(other, user_id, *shown)
            by_setting = {item["item_id"]: item["score"] for item in (await list_of(other, user_id, 60))["items"]}
            assert by_setting == found
        await report(client, user_id, {"item_id": first, "type": "view"})
        again = await body(client, "POST", "/v1/recommendations", 200, json=wanted)
        assert again["freshness"]["events_applied"] == 1
    assert recorded_events(context)[-1]["request"] == {"n": 60, "impression_factor": 0.5}
