import random
from collections import Counter
from typing import Any

import orjson
import pytest

from ops.load.http_connection import Answer
from ops.load.population import Population
from ops.load.traffic import MAX_EVENTS, LoadRequest, Mix, Traffic

_USERS = tuple(f"user {number}" for number in range(200))
_ITEMS = tuple(str(number) for number in range(50))


def _traffic(mix: Mix | None = None, *, users: tuple[str, ...] = _USERS, seed: int = 1) -> Traffic:
    population = Population(users, _ITEMS, "a test", "a test")
    return Traffic(
        population, mix or Mix(), random.Random(seed), headers="Host: h:1\r\n", base_path="/base", run_id="run"
    )


def _list(request: LoadRequest, **changes: Any) -> Answer:
    items = [{"item_id": str(n), "score": 1.0, "source": "personal"} for n in range(request.expected)]
    body = {"recommendation_id": "r-1", "user_id": request.user_id, "items": items, "degraded": None, "shortfall": None}
    return Answer(200, {}, orjson.dumps(body | changes))


def _first(traffic: Traffic, kind: str) -> LoadRequest:
    return next(request for request in iter(traffic.next, None) if request.kind == kind)


def _body(request: LoadRequest) -> Any:
    return orjson.loads(request.wire.partition(b"\r\n\r\n")[2])


def test_the_shares_of_kinds_and_users_are_as_requested() -> None:
    """Over many requests."""
    traffic = _traffic(Mix(feedback=0.2, known=0.5, unknown=0.2, hot=0.3))
    requests = [traffic.next() for _ in range(20_000)]
    kinds = Counter(request.kind for request in requests)
    users = Counter(request.user_class for request in requests)
    assert kinds["feedback"] / 20_000 == pytest.approx(0.2, abs=0.01)
    assert users["known"] / 20_000 == pytest.approx(0.5, abs=0.02)
    assert users["unknown"] / 20_000 == pytest.approx(0.2, abs=0.02)


def test_hot_users_recur_and_known_ones_are_drawn_evenly() -> None:
    """The most frequent hot user has far more than an even share; the most frequent known one has not."""
    for mix, least, most in (
        (Mix(feedback=0, known=0, unknown=0, hot=1), 0.1, 1.0),
        (Mix(feedback=0, known=1, unknown=0, hot=0), 0.0, 0.02),
    ):
        traffic = _traffic(mix)
        counts = Counter(traffic.next().user_id for _ in range(10_000))
        (_, top) = counts.most_common(1)[0]
        assert least <= top / 10_000 <= most


def test_without_known_users_every_user_is_unknown() -> None:
    """None is drawn as known."""
    traffic = _traffic(users=())
    assert {traffic.next().user_class for _ in range(200)} == {"unknown"}


def test_the_same_seed_gives_the_same_requests() -> None:
    """A run can be repeated."""
    first, again, other = ([_traffic(seed=seed).next().wire for _ in range(1)] for seed in (5, 5, 6))
    assert first == again
    one, two = _traffic(seed=5), _traffic(seed=5)
    assert [one.next() for _ in range(500)] == [two.next() for _ in range(500)]
    assert other != first


def test_ids_are_percent_encoded_into_the_path() -> None:
    """A slash or a blank in an id stays part of the id."""
    traffic = _traffic(Mix(feedback=0, known=1, unknown=0, hot=0), users=("a/b c?ä",))
    assert traffic.next().wire.startswith(
        b"GET /base/v1/recommendations/a%2Fb%20c%3F%C3%A4?n=10 HTTP/1.1\r\nHost: h:1\r\n"
    )


def test_feedback_is_well_formed_and_under_a_key_of_its_own() -> None:
    """One to twenty events of the API's types, a body of the stated length, and no key twice."""
    traffic = _traffic(Mix(feedback=1))
    requests = [traffic.next() for _ in range(300)]
    keys = set()
    for request in requests:
        head, _, body = request.wire.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
        keys.add(headers["Idempotency-Key"])
        assert int(headers["Content-Length"]) == len(body)
        events = orjson.loads(body)["events"]
        assert len(events) == request.expected
        for event in events:
            assert event["type"] in {"rating", "view", "click", "purchase", "dismiss", "impression"}
            assert (event["user_id"], "value" in event) == (request.user_id, event["type"] == "rating")
            assert event["item_id"] in _ITEMS
    assert len(keys) == 300
    assert {request.expected for request in requests} == set(range(1, MAX_EVENTS + 1))


def test_feedback_refers_to_a_list_that_was_served() -> None:
    """Once a list came back, events carry its id, its user and the position of the item in it."""
    traffic = _traffic(Mix(feedback=0.5))
    served = _first(traffic, "recommend")
    items = [{"item_id": f"i{n}"} for n in range(served.expected)]
    assert traffic.check_answer(served, _list(served, items=items)).failure is None
    request = _first(traffic, "feedback")
    assert (request.user_id, request.user_class) == (served.user_id, served.user_class)
    for event in _body(request)["events"]:
        assert event["recommendation_id"] == "r-1"
        assert event["item_id"] == f"i{event['position']}"


@pytest.mark.parametrize(
    ("changes", "failure", "words"),
    [
        ({}, None, ""),
        ({"items": []}, "body", "0 came and no shortfall"),
        ({"items": [], "shortfall": {"missing": 10}}, None, ""),
        ({"items": [{"item_id": "1"}] * 10}, "body", "twice"),
        ({"items": [{"item_id": str(n)} for n in range(11)]}, "body", "11 came"),
        ({"items": None}, "body", "no list of items"),
        ({"items": [{"item_id": 5}]}, "body", "no list of items"),
        ({"user_id": "somebody else"}, "body", "somebody else"),
        ({"recommendation_id": None}, "body", "recommendation_id"),
    ],
)
def test_a_list_is_checked_against_the_api(changes: dict[str, Any], failure: str | None, words: str) -> None:
    """An unstated shortfall, another user's list and the like are failures with status 200."""
    traffic = _traffic(Mix(feedback=0))
    request = traffic.next()
    check = traffic.check_answer(request, _list(request, **changes))
    assert check.failure == failure
    assert words in (check.detail or "")
    assert check.shortfall == (changes.get("shortfall") is not None)


def test_degraded_answers_are_good_and_counted_by_level() -> None:
    """The static list has no user and its own length; feedback never refers to it."""
    traffic = _traffic(Mix(feedback=0.5))
    request = _first(traffic, "recommend")
    static = _list(request, degraded="static", recommendation_id=None, user_id=None, items=[{"item_id": "1"}])
    assert (traffic.check_answer(request, static).failure, traffic.check_answer(request, static).degraded) == (
        None,
        "static",
    )
    named = Answer(200, {"x-degraded": "popular"}, _list(request).body)
    assert traffic.check_answer(request, named).degraded == "popular"
    empty = _list(request, degraded="static", recommendation_id=None, items=[])
    assert traffic.check_answer(request, empty).failure == "body"


def test_feedback_counts_as_accepted_only_in_full() -> None:
    """Any other number is a failure."""
    traffic = _traffic(Mix(feedback=1))
    request = traffic.next()
    good = Answer(202, {}, orjson.dumps({"accepted": request.expected, "durability": "disk"}))
    assert (traffic.check_answer(request, good).failure, traffic.check_answer(request, good).events) == (
        None,
        request.expected,
    )
    assert traffic.check_answer(request, Answer(202, {}, b'{"accepted": 0}')).failure == "body"
    assert traffic.check_answer(request, Answer(200, {}, good.body)).failure == "status_200"
    refused = traffic.check_answer(request, Answer(429, {}, b'{"title": "too fast"}'))
    assert refused.failure == "status_429"
    assert "too fast" in (refused.detail or "")


@pytest.mark.parametrize("body", [b"", b"no json", b"[1]", b"\xff"])
def test_a_body_that_is_not_a_json_object_is_a_failure(body: bytes) -> None:
    """Also with status 200."""
    traffic = _traffic(Mix(feedback=0))
    assert traffic.check_answer(traffic.next(), Answer(200, {}, body)).failure == "body"
