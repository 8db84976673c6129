"""What is popular within a window, of training and live events together."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

from service.lists.popular_window import window_s
from service.live.window_counts import COUNTED_TYPES, window_counts
from service.models.snapshot import ModelSnapshot
from service.serving.replica.context import ReplicaContext
from telemetry.batch import Position
from telemetry.live.event_layer import EventLayer, write_layer
from telemetry.live.live_event import LiveEvent
from tests.support.live.live_events import MemorySnapshot, event
from tests.support.replicas.replica_app import Client, body

DAY_S = 86_400
END_S = 100 * DAY_S


@pytest.fixture
def model(make_snapshot: Callable[..., ModelSnapshot]) -> ModelSnapshot:
    """Three interactions: with i0 on day 100, with i1 on day 99, with i2 on day 10."""
    seen = np.zeros((7, 60), np.float32)
    seen[0, :3] = 4.0
    times_s = np.array([END_S, 99 * DAY_S, 10 * DAY_S])
    return replace(make_snapshot(n_items=60), history=csr_array(seen), history_times=times_s)


def at(day: float, item: int, seq: int, type_: str = "view") -> LiveEvent:
    return event(seq, int(day * DAY_S * 1000), item_id=f"i{item}", type=type_)


def test_a_window_ends_with_the_latest_interaction(model: ModelSnapshot) -> None:
    """Live events before the end of the training data are part of it already; dismissals make nothing popular."""
    nothing = MemorySnapshot()
    assert np.flatnonzero(window_counts(model, 2 * DAY_S, nothing, [])).tolist() == [0, 1]
    held = [at(100.5, 5, 1), at(99.5, 6, 2), at(101, 5, 3, "dismiss")]
    since = [at(101.25, 5, 4), at(101.5, 7, 5), at(101.5, 999, 6)]
    snapshot = MemorySnapshot(held=held)
    counts = window_counts(model, 2 * DAY_S, snapshot, since)
    assert {row: counts[row] for row in np.flatnonzero(counts).tolist()} == {0: 1, 5: 2, 7: 1}
    everything = window_counts(model, 500 * DAY_S, snapshot, since)
    assert np.flatnonzero(everything).tolist() == [0, 1, 2, 5, 7]


def test_a_layer_counts_as_its_events(tmp_path: Path) -> None:
    """By item, type and time."""
    rng = np.random.default_rng(3)
    events = [
        event(
            seq, int(rng.integers(0, 100)), item_id=f"i{rng.integers(0, 5)}", type=str(rng.choice(["view", "dismiss"]))
        )
        for seq in range(1, 60)
    ]
    write_layer(tmp_path / "layer", events, 1000)
    layer = EventLayer(tmp_path / "layer")
    items, counts = layer.item_counts(COUNTED_TYPES, 40)
    expected = MemorySnapshot(Position(1, 0), events).item_counts(COUNTED_TYPES, 40)
    assert {name: n for name, n in zip(items, counts.tolist(), strict=True) if n} == {
        name: n for names, ns in expected for name, n in zip(names, ns.tolist(), strict=True)
    }


@pytest.mark.parametrize(
    ("text", "seconds"), [("7d", 7 * DAY_S), ("12h", 43_200), ("0d", None), ("7", None), ("7D", None)]
)
def test_a_window_is_a_number_and_a_unit(text: str, seconds: int | None) -> None:
    assert window_s(text) == seconds


async def test_the_route_lists_the_window_and_then_the_rest(
    client: Client, context: ReplicaContext, model: ModelSnapshot
) -> None:
    context.store.swap(model)
    answer = await body(client, "GET", "/v1/popular?window=2d&n=60", 200)
    ids = [item["item_id"] for item in answer["items"]]
    assert set(ids[:2]) == {"i0", "i1"}
    assert len(set(ids)) == 60
    rest = [model.items.id_of[row] for row in model.popular_rows if row not in (0, 1)]
    assert ids[2:] == rest
    assert {item["source"] for item in answer["items"]} == {"popular"}
    assert answer["items"][2]["score"] == 0
    for bad in ("window=7", "window=2d&window=3d", "window="):
        await body(client, "GET", f"/v1/popular?{bad}", 422)
