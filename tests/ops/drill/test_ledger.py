import json
import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ops.drill.ledger import Ledger
from ops.drill.witness import REFUSED, Witness
from ops.load.http_connection import Answer
from ops.load.population import Population
from ops.load.traffic import Mix, Request

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
    """Random debts, some lost, some doubled, some altered, in any order and beside lines of others."""
    fates = data.draw(st.lists(st.sampled_from(["kept", "lost", "doubled", "altered", "list", "lost list"])))
    ledger = Ledger()
    lines = [_line("somebody-else's", _EVENT), _served("somebody-else's"), b'{"class":"system","kind":"gap"}\n']
    for number, fate in enumerate(fates):
        name = f"id-{number}"
        if "list" in fate:
            ledger.served(name, float(number))
            lines += [] if fate == "lost list" else [_served(name)]
            continue
        ledger.took(name, _EVENT, float(number))
        copies = {"lost": 0, "doubled": 2}.get(fate, 1)
        changes = {"value": 5.0} if fate == "altered" else {}
        lines += [_line(name, _EVENT, **changes)] * copies
    random.Random(len(fates)).shuffle(lines)
    found = ledger.compare(lines)
    planted = {
        kind: [float(n) for n, fate in enumerate(fates) if kind in fate] for kind in ("lost", "doubled", "altered")
    }
    assert found.owed == len(fates)
    assert (sorted(found.lost), sorted(found.doubled), sorted(found.altered)) == tuple(planted.values())
    assert found.clean == (not any(planted.values()))


def test_an_event_acknowledged_twice_is_owed_once_since_the_first_time() -> None:
    """A client that retries gets a second 202 for the same id."""
    ledger = Ledger()
    ledger.took("id-1", _EVENT, 1.0)
    ledger.took("id-1", _EVENT, 2.0)
    assert ledger.compare([]).lost == [1.0]


def test_ids_to_look_for_are_spread_over_the_whole_time() -> None:
    """Early ones and late ones, no more than asked for."""
    ledger = Ledger()
    for number in range(1000):
        ledger.served(f"id-{number}", 0.0)
    ids = ledger.some_ids(10)
    assert len(ids) == 10
    assert (ids[0], ids[-1]) == ("id-0", "id-900")
    assert Ledger().some_ids(10) == []


def test_users_go_by_the_name_that_telemetry_knows() -> None:
    """Where users are pseudonymised, the archive holds the pseudonym."""
    ledger = Ledger(lambda user_id: f"p-{user_id}")
    ledger.took("id-1", _EVENT, 1.0)
    assert ledger.compare([_line("id-1", _EVENT, user_id="p-u1")]).clean
    assert ledger.compare([_line("id-1", _EVENT)]).altered == [1.0]


def _witness(feedback: float) -> tuple[Witness, Ledger]:
    ledger = Ledger()
    population = Population(("1", "2"), ("10", "11"), "a test", "a test")
    witness = Witness(
        population,
        Mix(feedback=feedback),
        random.Random(1),
        headers="Host: h:1\r\n",
        base_path="",
        run_id="chaos-test",
        ledger=ledger,
        clock=lambda: 7.0,
    )
    return witness, ledger


def _sent(request: Request) -> tuple[dict[str, str], list[dict[str, Any]]]:
    head, _, body = request.wire.partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    assert headers["Content-Length"] == str(len(body))
    events: list[dict[str, Any]] = json.loads(body)["events"]
    return headers, events


def _answer(status: int, body: dict[str, Any], **headers: str) -> Answer:
    return Answer(status, headers, json.dumps(body).encode())


def test_what_a_202_acknowledged_is_owed_as_it_was_sent() -> None:
    """By its own id, or by the one that the service derives from the key; with the time the client gave."""
    witness, ledger = _witness(1.0)
    kinds = set()
    for _ in range(4):
        request = witness.next()
        headers, events = _sent(request)
        assert len(events) == request.expected
        verdict = witness.check_answer(request, _answer(202, {"accepted": len(events)}))
        assert verdict.failure is None
        named = "event_id" in events[0]
        kinds.add(named)
        ids = [event.pop("event_id", f"{headers['Idempotency-Key']}-{index}") for index, event in enumerate(events)]
        lines = [_line(event_id, event) for event_id, event in zip(ids, events, strict=True)]
        assert all(event["ts"].endswith("Z") for event in events)
        assert len(ledger.compare(lines).lost) == len(ledger) - len(ids)
        assert not ledger.compare(lines).altered
    assert kinds == {True, False}


def test_nothing_is_owed_for_a_refusal() -> None:
    """A 503 with Retry-After is a refusal, one without is a failure; neither acknowledges anything."""
    witness, ledger = _witness(1.0)
    request = witness.next()
    assert witness.check_answer(request, _answer(503, {}, **{"retry-after": "1"})).failure == REFUSED
    assert witness.check_answer(request, _answer(503, {})).failure == "status_503"
    assert witness.check_answer(request, _answer(202, {"accepted": 0})).failure == "body"
    assert len(ledger) == 0


def test_a_list_is_owed_unless_it_was_the_static_one() -> None:
    """nginx's own list has no id: no replica saw the request."""
    witness, ledger = _witness(0.0)
    request = witness.next()
    items = [{"item_id": str(n)} for n in range(10)]
    full = {"recommendation_id": "r-1", "user_id": request.user_id, "items": items}
    assert witness.check_answer(request, _answer(200, full)).failure is None
    assert ledger.compare([]).lost == [7.0]
    assert ledger.compare([_served("r-1")]).clean
    static = {"recommendation_id": None, "user_id": None, "items": items, "degraded": "static"}
    assert witness.check_answer(request, _answer(200, static)).failure is None
    assert len(ledger) == 1
