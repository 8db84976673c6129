"""The benchmark of lists at the edge: what it asks, and what it measures of a service that answers."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from ops.benchmarks.installations.edge_latency import (
    FEATURES,
    KNOWN,
    SESSION,
    EdgePlan,
    EdgeResult,
    bodies,
    measure,
    rows,
)
from service.api.list_bodies import RecommendationsRequest
from service.errors import RunError
from service.models.features.attribute_categories import AttributeCategories
from service.models.features.feature_encoder import FeatureEncoder
from service.models.networks.networks import Networks
from service.models.snapshot import ModelSnapshot
from tests.support.networks.tiny_networks import MeanTower

PLAN = EdgePlan(n=3, requests=10, seed=4)


def test_requests_are_valid_and_of_each_kind_that_the_model_answers_to(
    make_snapshot: Callable[..., ModelSnapshot],
) -> None:
    """A model without attributes of users is sent no features."""
    model = make_snapshot()
    drawn = bodies(model, PLAN)
    assert list(drawn) == [KNOWN, SESSION]
    for kind, texts in drawn.items():
        requests = [RecommendationsRequest.model_validate_json(text) for text in texts]
        assert [request.n for request in requests] == [3] * 10
        assert all((request.user_id in model.users.row_of) == (kind == KNOWN) for request in requests)
    encoder = FeatureEncoder(users=(AttributeCategories("region", ("north", "south")),))
    towers = replace(
        model, networks=Networks(MeanTower(np.ones(8, np.float32), np.zeros((3, 8), np.float32)), features=encoder)
    )
    sent = [json.loads(text)["user_features"]["region"] for text in bodies(towers, PLAN)[FEATURES]]
    assert set(sent) == {"north", "south"}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    degraded: Any = None

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        text = json.dumps({"items": [{}] * 3, "degraded": self.degraded}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(params=[None, "popular"])
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    """A server that answers with three items; the parameter says how degraded they are."""
    handler = type("Handler", (_Handler,), {"degraded": request.param})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("port", [None], indirect=True)
def test_every_request_is_measured(port: int) -> None:
    """So many of each kind, each longer than nothing."""
    result = measure(PLAN, port, {KNOWN: [b"{}"] * 10, SESSION: [b"{}"] * 10})
    assert {kind: len(times) for kind, times in result.latencies_ms.items()} == {KNOWN: 10, SESSION: 10}
    assert min(map(min, result.latencies_ms.values())) > 0


@pytest.mark.parametrize("port", ["popular"], indirect=True)
def test_a_degraded_list_is_no_measurement(port: int) -> None:
    """A list that took less work must not make the service look fast."""
    with pytest.raises(RunError, match="degraded 'popular'"):
        measure(PLAN, port, {KNOWN: [b"{}"] * 10})


def test_percentiles_are_those_of_a_kind() -> None:
    """The objective is judged by the slowest kind."""
    result = EdgeResult({KNOWN: [1.0] * 99 + [50.0], SESSION: [float(ms) for ms in range(1, 101)]})
    assert result.figures()[SESSION] == {"p50_ms": 50.5, "p99_ms": 99.01, "max_ms": 100.0, "requests": 100}
    assert result.worst_p99_ms() == pytest.approx(99.01)
    assert next(iter(rows(result.figures()))) == (KNOWN, "1.00 ms", "1.49 ms", "50.00 ms", "100")
