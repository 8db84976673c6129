"""Generated bodies, well-formed and not, on the real application and listener.

Every answer must be one that /openapi.json promises. A body that the schema refuses is never accepted.
"""

import json
from typing import Any

import orjson
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.support.replicas.described_answers import DOCUMENT, judge, validator
from tests.support.replicas.generated_requests import good_id, ids, seeded
from tests.support.replicas.listening_replica import ListeningReplica, request

BODY_SCHEMAS = {
    "/v1/recommendations": "RecommendationsRequest",
    "/v1/recommendations/batch": "ManyRecommendationsRequest",
    "/v1/events": "EventsRequest",
}
REQUESTS = {path: validator({"$ref": f"#/components/schemas/{name}"}) for path, name in BODY_SCHEMAS.items()}
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
known = st.one_of(ids, good_id)
filters = st.sampled_from(['year > 3 or genre == "x"', "year == null", "not (a in [1, 'b'])", "a =="]) | st.text(
    max_size=9
)
session_item = st.fixed_dictionaries(
    {"item_id": known},
    optional={"type": st.sampled_from(["view", "rating", "dismiss"]), "value": st.none() | st.floats(-1e9, 1e9)},
)
lists = st.fixed_dictionaries(
    {},
    optional={
        "user_id": st.none() | known,
        "n": st.integers(1, 500),
        "offset": st.integers(0, 10_000),
        "exclude": st.lists(known, max_size=5),
        "include": st.none() | st.lists(known, max_size=5),
        "filter": st.none() | filters,
        "boosts": st.lists(st.fixed_dictionaries({"filter": filters, "factor": st.floats(0.01, 100)}), max_size=2),
        "pins": st.lists(st.fixed_dictionaries({"item_id": known, "position": st.integers(0, 30)}), max_size=3),
        "session": st.lists(known | session_item, max_size=3),
        "user_features": st.dictionaries(
            st.sampled_from(["age", "town"]), st.none() | st.booleans() | st.floats(-1e15, 1e15) | st.just(["a", "b"])
        ),
        "seeds": st.lists(known, max_size=3),
        "explain": st.integers(0, 20),
        "diversity": st.floats(0, 1),
        "deadline_ms": st.none() | st.integers(1, 60_000),
        "page_token": st.none() | st.text(max_size=20),
        "fields": st.lists(st.sampled_from(["title", "genres", "x"]), max_size=2),
    },
)
event = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["rating", "view", "click", "purchase", "dismiss", "impression"]),
        "user_id": known,
        "item_id": known,
    },
    optional={
        "event_id": st.none() | st.from_regex(r"\A[A-Za-z0-9_-]{8,72}\Z"),
        "value": st.none() | st.floats(-1e9, 1e9),
        "recommendation_id": st.none() | known,
        "position": st.none() | st.integers(0, 10_500),
        "ts": st.none() | st.datetimes().map(lambda moment: moment.isoformat() + "Z"),
    },
)
bodies = {
    "/v1/recommendations": lists,
    "/v1/recommendations/batch": st.fixed_dictionaries({"requests": st.lists(lists, max_size=3)}),
    "/v1/events": st.fixed_dictionaries({"events": st.lists(event, max_size=4)}),
}


@st.composite
def mutated(draw: st.DrawFn, strategy: st.SearchStrategy[Any]) -> Any:
    """Return a value with one of its parts, or all of it, replaced by anything."""
    value = draw(strategy)
    if isinstance(value, dict) and draw(st.booleans()):
        name = draw(st.sampled_from(sorted(value)) | st.text(max_size=8) if value else st.text(max_size=8))
        return value | {name: draw(mutated(st.just(value[name])) if name in value else anything)}
    if isinstance(value, list) and value and draw(st.booleans()):
        place = draw(st.integers(0, len(value) - 1))
        return [*value[:place], draw(mutated(st.just(value[place]))), *value[place + 1 :]]
    return draw(anything)


@seeded
@given(data=st.data(), path=st.sampled_from(sorted(bodies)), twisted=st.booleans())
def test_json_bodies(replica: ListeningReplica, data: st.DataObject, path: str, *, twisted: bool) -> None:
    """Bodies of the described shape and ones with a part replaced; what the schema refuses is refused."""
    value = data.draw(mutated(bodies[path]) if twisted else bodies[path])
    try:
        body = orjson.dumps(value)
    except TypeError:
        # A lone surrogate, which JSON can write only as an escape; the service must refuse it.
        body = str(value).encode("utf-8", "surrogatepass")
        value = None
    answer = replica.send(request("POST", path, body))
    judge(replica, answer, DOCUMENT["paths"][path]["post"])
    if not REQUESTS[path].is_valid(value):
        assert answer.status in {400, 422}, answer


@st.composite
def with_repeats(draw: st.DrawFn, strategy: st.SearchStrategy[Any]) -> bytes:
    """Return the JSON of a value with one field of one of its objects given twice."""
    value = draw(strategy)
    objects: list[dict[str, Any]] = []

    def collect(one: Any) -> None:
        if isinstance(one, dict):
            if one:
                objects.append(one)
            for child in one.values():
                collect(child)
        elif isinstance(one, list):
            for child in one:
                collect(child)

    collect(value)
    assume(objects)
    chosen = draw(st.sampled_from(objects))
    name = draw(st.sampled_from(sorted(chosen)))
    # A name that no body has marks the place, and becomes the other one in the text.
    chosen["\U0001f511"] = chosen[name]
    indent = draw(st.none() | st.integers(0, 2))
    text = json.dumps(value, ensure_ascii=draw(st.booleans()), indent=indent)
    for mark in ("\U0001f511", "\\ud83d\\udd11"):
        text = text.replace(f'"{mark}"', json.dumps(name))
    return text.encode()


@seeded
@given(data=st.data(), path=st.sampled_from(sorted(bodies)))
def test_repeated_fields(replica: ListeningReplica, data: st.DataObject, path: str) -> None:
    """A body with a duplicate field is refused, at any depth and in any spelling."""
    body = data.draw(with_repeats(mutated(bodies[path])))
    answer = replica.send(request("POST", path, body))
    judge(replica, answer, DOCUMENT["paths"][path]["post"])
    assert answer.status == 422
    (error,) = orjson.loads(answer.body)["errors"]
    assert error["message"] == "is given more than once"


@seeded
@given(body=st.binary(max_size=200), path=st.sampled_from(sorted(bodies)))
def test_bytes_as_bodies(replica: ListeningReplica, body: bytes, path: str) -> None:
    """Bytes that are no JSON are answered 4xx."""
    judge(replica, replica.send(request("POST", path, body)), DOCUMENT["paths"][path]["post"])
