"""GET /v1/users: what is known of a user, on the real application of one replica."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from service.models.fold_in.settings import FoldIn
from service.models.snapshot import ModelSnapshot
from service.serving.replica.context import ReplicaContext
from tests.support.replicas.replica_app import Client, body


async def test_training_and_events_are_shown_the_latest_first(client: Client, context: ReplicaContext) -> None:
    """As lists answer to them; the events also as they were reported, of unknown items too."""
    snapshot = context.store.current()
    context.store.swap(replace(snapshot, fold_in=FoldIn("decayed_sum")))
    before = await body(client, "GET", "/v1/users/u1", 200)
    seen = [snapshot.items.id_of[row] for row in snapshot.seen_rows(1).tolist()]
    assert (before["trained"], before["n_interactions"], before["n_events"]) == (True, len(seen), 0)
    assert [one["item_id"] for one in before["interactions"]] == seen[::-1][:10]
    assert (before["state_watermark"], before["freshness"]["events_applied"]) == (None, 0)
    events = [
        {"user_id": "u1", "item_id": "unheard of", "type": "view", "ts": "2026-11-21T01:02:03.456Z"},
        {"user_id": "u1", "item_id": seen[0], "type": "rating", "value": 2, "ts": "2026-11-21T01:02:04.456Z"},
    ]
    await body(client, "POST", "/v1/events", 202, json={"events": events})
    after = await body(client, "GET", "/v1/users?user_id=u1&n=2", 200)
    assert (after["n_interactions"], after["n_events"]) == (len(seen), 2)
    assert after["interactions"][0] == {"item_id": seen[0], "type": "rating", "value": 2.0, "time": None}
    assert after["events"] == [
        {"item_id": seen[0], "type": "rating", "value": 2.0, "time": "2026-11-21T01:02:04.456Z"},
        {"item_id": "unheard of", "type": "view", "value": None, "time": "2026-11-21T01:02:03.456Z"},
    ]
    assert after["freshness"] == {"as_of": "2026-11-21T01:02:04.456Z", "events_applied": 1}
    listed = await body(client, "GET", "/v1/recommendations/u1", 200)
    assert listed["freshness"] == after["freshness"]


async def test_times_of_training_are_shown(
    client: Client, context: ReplicaContext, make_snapshot: Callable[..., ModelSnapshot]
) -> None:
    """Where the data has them."""
    made = make_snapshot(n_items=60)
    n = made.history.nnz
    context.store.swap(
        replace(made, history_ranks=np.arange(n, dtype=np.int32), history_times=np.arange(n, dtype=np.int64))
    )
    shown = await body(client, "GET", "/v1/users/u0?n=1", 200)
    (last,) = shown["interactions"]
    seconds = made.seen_rows(0).size - 1
    assert last["time"] == f"1970-01-01T00:00:{seconds:02d}.000Z"


async def test_nobody_knows_an_unknown_user(client: Client) -> None:
    """200 with nothing, as for lists."""
    shown = await body(client, "GET", "/v1/users/nobody", 200)
    assert (shown["trained"], shown["interactions"], shown["events"]) == (False, [], [])
    assert (await body(client, "GET", "/v1/users", 422))["errors"][0]["field"] == "user_id"
    await body(client, "GET", "/v1/users/u1?n=501", 422)
