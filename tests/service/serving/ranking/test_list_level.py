"""Lists under a deadline: the best level that fits, and what a caller sees of it."""

from dataclasses import replace

import numpy as np
import pytest

from service.models.user_clusters import UserClusters
from service.serving.ranking.list_level import LEVELS, LevelCosts
from service.serving.replica.context import ReplicaContext
from tests.support.replicas.replica_app import Client, body, recorded_events


def test_the_best_level_that_fits_is_taken() -> None:
    costs = LevelCosts()
    assert costs.level_for(0.001) is None
    for level, took_s in zip(LEVELS, (0.1, 0.01, 0.001, 0.0001), strict=True):
        for _ in range(50):
            costs.observe(level, took_s)
    assert [costs.level_for(left_s) for left_s in (0.2, 0.05, 0.005, 0.0005, 0.0)] == [
        None,
        "trained",
        "cluster",
        "popular",
        "popular",
    ]


def test_a_level_that_was_slow_once_is_tried_again() -> None:
    """It is passed over at first."""
    costs = LevelCosts()
    costs.observe(None, 1.0)
    levels = [costs.level_for(0.1) for _ in range(500)]
    assert levels[0] == "trained"
    assert levels[-1] is None


@pytest.mark.parametrize(("slow", "expected"), [(0, None), (1, "trained"), (2, "cluster"), (3, "popular")])
async def test_a_list_says_what_its_deadline_left(
    client: Client, context: ReplicaContext, slow: int, expected: str | None
) -> None:
    """In the answer, in a header and in the served event; the seen items stay out."""
    snapshot = context.store.current()
    n_items = len(snapshot.items)
    listed = np.arange(n_items)[::-1][np.newaxis, :].astype(np.int32)
    clusters = UserClusters(np.zeros(len(snapshot.users), np.uint8), listed)
    context.store.swap(replace(snapshot, user_clusters=clusters))
    for level in LEVELS[:slow]:
        context.level_costs.observe(level, 60.0)
    query = {"user_id": "u1", "n": 7, "deadline_ms": 100}
    async with client.post("/v1/recommendations", json=query) as response:
        answer = await response.json()
        assert response.headers.get("X-Degraded") == expected
    assert answer["degraded"] == expected
    assert len(answer["items"]) == 7
    seen = {snapshot.items.id_of[row] for row in snapshot.seen_rows(1)}
    assert not seen & {item["item_id"] for item in answer["items"]}
    assert {item["source"] for item in answer["items"]} == {"personal" if slow < 2 else "popular"}
    if expected == "cluster":
        unseen = [row for row in range(n_items)[::-1] if snapshot.items.id_of[row] not in seen]
        assert [item["item_id"] for item in answer["items"]] == [snapshot.items.id_of[row] for row in unseen[:7]]
    got = await body(client, "GET", "/v1/recommendations/u1?n=7&deadline_ms=100", 200)
    assert got["items"] == answer["items"]
    for event in recorded_events(context):
        assert event["degraded"] == expected
        assert event["request"].get("level") == expected
