"""Generated methods, targets, ids, credentials and bytes, on the real application and listener.

Every answer must be one that /openapi.json promises.
"""

import re
from urllib.parse import quote

import orjson
from hypothesis import given
from hypothesis import strategies as st

from tests.support.replicas.described_answers import DOCUMENT, judge
from tests.support.replicas.generated_requests import good_id, ids, path_like, seeded
from tests.support.replicas.listening_replica import ListeningReplica, request

GETS = [path for path, item in DOCUMENT["paths"].items() if "get" in item]
# The names of all query fields of lists, and any text.
fields = st.sampled_from(["n", "offset", "filter", "page_token", "fields", "explain", "deadline_ms", "q", "like"])
values = st.one_of(
    st.integers(-3, 600).map(str),
    st.text(max_size=8),
    st.sampled_from(["007", "1e2", "٣", "1_0", "+1"]),
    st.sampled_from(['year > 3 or genre == "x"', "year == null", "not (a in [1, 'b'])", "AQAApZ1mTQHxQJQ4"]),
)


@seeded
@given(
    path=st.sampled_from(GETS),
    fill=ids,
    query=st.lists(st.tuples(st.one_of(fields, fields, st.text(max_size=5)), values), max_size=2),
)
def test_gets(replica: ListeningReplica, path: str, fill: str, query: list[tuple[str, str]]) -> None:
    """Any id and any query: a list as described, or a problem as described."""
    encoded = quote(fill, safe="", errors="surrogatepass")
    target = re.sub(r"\{\w+\}", lambda _: encoded, path)
    if query:
        target += "?" + "&".join(
            f"{quote(name, safe='', errors='surrogatepass')}={quote(value, safe='', errors='surrogatepass')}"
            for name, value in query
        )
    judge(replica, replica.send(request("GET", target)), DOCUMENT["paths"][path]["get"])


@seeded
@given(path=st.sampled_from(GETS), fill=ids, n=st.none() | values)
def test_heads(replica: ListeningReplica, path: str, fill: str, n: str | None) -> None:
    """HEAD is answered like GET, without a body and without a served event."""
    target = re.sub(r"\{\w+\}", lambda _: quote(fill, safe="", errors="surrogatepass"), path)
    if n is not None:
        target += f"?n={quote(n, safe='', errors='surrogatepass')}"
    before = replica.offered
    head = replica.send(request("HEAD", target), has_body=False)
    assert replica.offered == before
    got = replica.send(request("GET", target))
    assert (head.status, head.kind, head.body) == (got.status, got.kind, b"")
    assert head.length == got.length


@seeded
@given(
    where=st.sampled_from([(m, p) for p, item in DOCUMENT["paths"].items() for m in item]),
    name=st.sampled_from(["Authorization", "X-API-Key", "x-api-key"]),
    value=st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=80)
    | st.from_regex(r"\A(Bearer |bearer  |Basic )?rk_[0-9a-f]{8}_[A-Za-z0-9_-]{43}\Z"),
)
def test_any_credentials(replica: ListeningReplica, where: tuple[str, str], name: str, value: str) -> None:
    """With keys, any other text is answered 401 on every route with a scope, and records nothing."""
    method, path = where
    operation = DOCUMENT["paths"][path][method]
    line = f"{name}: {value}\r\n".encode("latin-1")
    raw = request(method.upper(), re.sub(r"\{\w+\}", "u1", path)).removesuffix(b"\r\n") + line + b"\r\n"
    with replica.requiring_keys():
        before = replica.offered
        answer = replica.send(raw)
        assert replica.offered == before
    judge(replica, answer, operation)
    assert (answer.status == 401) is ("401" in operation["responses"]), answer


@seeded
@given(user_id=ids)
def test_erasures(replica: ListeningReplica, user_id: str) -> None:
    """Any id: a receipt as described, or a problem as described."""
    target = f"/v1/users/{quote(user_id, safe='', errors='surrogatepass')}"
    judge(replica, replica.send(request("DELETE", target)), DOCUMENT["paths"]["/v1/users/{user_id}"]["delete"])


@seeded
@given(user_id=good_id | path_like, safe=st.sampled_from(["", "{}", "!$&'()*+,;=:@{}|^"]))
def test_any_valid_id_works_on_every_route(replica: ListeningReplica, user_id: str, safe: str) -> None:
    """A percent-encoded id arrives unchanged, whatever it looks like."""
    encoded = quote(user_id, safe=safe)
    queried = quote(user_id, safe="")
    for target in (f"/recommend/{encoded}", f"/recommend?user_id={queried}"):
        assert replica.send(request("GET", target)).status == 200
    for method, path, status in (("GET", "/v1/recommendations", 200), ("DELETE", "/v1/users", 202)):
        for target in (f"{path}/{encoded}", f"{path}?user_id={queried}"):
            answer = replica.send(request(method, target))
            assert (answer.status, orjson.loads(answer.body)["user_id"]) == (status, user_id)
    for target in (f"/v1/items/{encoded}/similar", f"/v1/items/similar?item_id={queried}&n=3"):
        answer = replica.send(request("GET", target))
        assert answer.status == 200 or (answer.status == 404 and repr(user_id) in orjson.loads(answer.body)["detail"])


@seeded
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]),
    target=st.lists(
        st.sampled_from(["v1", "recommend", "recommendations", "items", "similar", "events", "users"])
        | st.sampled_from(["..", "%2F", "%", "%00", "%ff", "", "a"])
        | st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="?#"), max_size=8),
        max_size=5,
    ).map("/".join),
)
def test_any_target(replica: ListeningReplica, method: str, target: str) -> None:
    """Any method and path are answered, and errors are problems."""
    answer = replica.send(request(method, "/" + target))
    if answer.status >= 400:
        judge(replica, answer, None)
    else:
        assert replica.faults == 0


@seeded
@given(raw=st.binary(min_size=1, max_size=300))
def test_bytes_as_requests(replica: ListeningReplica, raw: bytes) -> None:
    """Bytes that are no HTTP are answered 400; each has the end of a head, so that the answer need not wait for it."""
    judge(replica, replica.send(b"\x00" + raw + b"\r\n\r\n"), None)
