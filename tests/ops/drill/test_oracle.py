import json
import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ops.drill.observed_traffic import REFUSED, ObservedTraffic
from ops.drill.oracle import Oracle
from ops.load.http_connection import Answer
from ops.load.population import Population
from ops.load.traffic import LoadRequest, Mix

_EVENT = {"type": "rating", "user_id": "u1", "item_id": "i1", "value": 4.0, "ts": "2026-01-01T00:00:00.000Z"}


def _line(event_id: str, event: dict[str, Any], **changes: Any) -> bytes:
    sent = {name: value for name, value in event.items() if name != "ts"}
    defaults = {"value": None, "recommendation_id": None, "position": None, "client_time": event.get("ts")}
    record = {"class": "feedback", "event_id": event_id, **defaults, **sent, "marks": ["unknown_item"], **changes}
    return json.dumps(record).encode() + b"\n"


def _served(recommendation_id: str) -> bytes:
    return json.dumps({"class": "served", "event_id": "e", "recommendation_id": recommendation_id}).encode() + b"\n"


@given(st.data())
def test_every_planted_fault_is_found_and_nothing_else(data: st.DataObject) -> None:
    """Random events and lists: lost, duplicated, altered, in any order and among other lines."""
    fates = data.draw(st.lists(st.sampled_from(["kept", "lost", "duplicated", "altered", "list", "lost list"])))
    oracle = Oracle()
    lines = [_line("unrelated", _EVENT), _served("unrelated"), b'{"class":"system","kind":"gap"}\n']
    for number, fate in enumerate(fates):
        name = f"id-{number}"
        if "list" in fate:
            oracle.record_list(name, float(number))
            lines += [] if fate == "lost list" else [_served(name)]
            continue
        oracle.record_event(name, _EVENT, float(number))
        copies = {"lost": 0, "duplicated": 2}.get(fate, 1)
        changes = {"value": 5.0} if fate == "altered" else {}
        lines += [_line(name, _EVENT, **changes)] * copies
    random.Random(len(fates)).shuffle(lines)
    found = oracle.check(lines)
    planted = {
        kind: [float(n) for n, fate in enumerate(fates) if kind in fate] for kind in ("lost", "duplicated", "altered")
    }
    assert found.expected == len(fates)
    assert (sorted(found.lost), sorted(found.duplicated), sorted(found.altered)) == tuple(planted.values())
    assert found.clean == (not any(planted.values()))


def test_an_event_acknowledged_twice_is_expected_once_since_the_first_time() -> None:
    """A client that retries gets a second 202 for the same id."""
    oracle = Oracle()
    oracle.record_event("id-1", _EVENT, 1.0)
    oracle.record_event("id-1", _EVENT, 2.0)
    assert oracle.check([]).lost == [1.0]


def test_sampled_ids_are_spread_over_the_whole_time() -> None:
    """From early to late, at most as many as requested."""
    oracle = Oracle()
    for number in range(1000):
        oracle.record_list(f"id-{number}", 0.0)
    ids = oracle.sample_ids(10)
    assert len(ids) == 10
    assert (ids[0], ids[-1]) == ("id-0", "id-900")
    assert Oracle().sample_ids(10) == []


def test_users_are_expected_under_their_pseudonyms() -> None:
    """The archive holds the pseudonym."""
    oracle = Oracle(lambda user_id: f"p-{user_id}")
    oracle.record_event("id-1", _EVENT, 1.0)
    assert oracle.check([_line("id-1", _EVENT, user_id="p-u1")]).clean
    assert oracle.check([_line("id-1", _EVENT)]).altered == [1.0]


def _traffic(feedback: float) -> tuple[ObservedTraffic, Oracle]:
    oracle = Oracle()
    population = Population(("1", "2"), ("10", "11"), "a test", "a test")
    traffic = ObservedTraffic(
        population,
        Mix(feedback=feedback),
        random.Random(1),
        headers="Host: h:1\r\n",
        base_path="",
        run_id="chaos-test",
        oracle=oracle,
        clock=lambda: 7.0,
    )
    return traffic, oracle


def _sent(request: LoadRequest) -> tuple[dict[str, str], list[dict[str, Any]]]:
    head, _, body = request.wire.partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    assert headers["Content-Length"] == str(len(body))
    events: list[dict[str, Any]] = json.loads(body)["events"]
    return headers, events


def _answer(status: int, body: dict[str, Any], **headers: str) -> Answer:
    return Answer(status, headers, json.dumps(body).encode())


def test_events_of_a_202_are_expected_as_they_were_sent() -> None:
    """By its own id, or by the one that the service derives from the key; with the client's time."""
    traffic, oracle = _traffic(1.0)
    kinds = set()
    for _ in range(4):
        request = traffic.next()
        headers, events = _sent(request)
        assert len(events) == request.expected
        verdict = traffic.check_answer(request, _answer(202, {"accepted": len(events)}))
        assert verdict.failure is None
        named = "event_id" in events[0]
        kinds.add(named)
        ids = [event.pop("event_id", f"{headers['Idempotency-Key']}-{index}") for index, event in enumerate(events)]
        lines = [_line(event_id, event) for event_id, event in zip(ids, events, strict=True)]
        assert all(event["ts"].endswith("Z") for event in events)
        assert len(oracle.check(lines).lost) == len(oracle) - len(ids)
        assert not oracle.check(lines).altered
    assert kinds == {True, False}


def test_nothing_is_expected_after_a_refusal() -> None:
    """A 503 with Retry-After is a refusal, one without is a failure; neither acknowledges anything."""
    traffic, oracle = _traffic(1.0)
    request = traffic.next()
    assert traffic.check_answer(request, _answer(503, {}, **{"retry-after": "1"})).failure == REFUSED
    assert traffic.check_answer(request, _answer(503, {})).failure == "status_503"
    assert traffic.check_answer(request, _answer(202, {"accepted": 0})).failure == "body"
    assert len(oracle) == 0


def test_a_list_is_expected_unless_it_is_the_static_one() -> None:
    """The static list has no id: no replica saw the request."""
    traffic, oracle = _traffic(0.0)
    request = traffic.next()
    items = [{"item_id": str(n)} for n in range(10)]
    full = {"recommendation_id": "r-1", "user_id": request.user_id, "items": items}
    assert traffic.check_answer(request, _answer(200, full)).failure is None
    assert oracle.check([]).lost == [7.0]
    assert oracle.check([_served("r-1")]).clean
    static = {"recommendation_id": None, "user_id": None, "items": items, "degraded": "static"}
    assert traffic.check_answer(request, _answer(200, static)).failure is None
    assert len(oracle) == 1
