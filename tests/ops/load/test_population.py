import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from scipy.sparse import csr_array

from ops.load.http_connection import HttpClient
from ops.load.population import Population, Target, discover, read_ids
from service.errors import DataError, RunError
from service.models.publication import publication
from service.models.snapshot import ModelSnapshot
from service.models.vocabulary import Vocabulary

_KNOWN = {"3", "17"}


@pytest.mark.parametrize(
    ("text", "users", "items"),
    [
        ("1\n2\n1\n", ("1", "2"), ()),
        ("1,10\n2,11\n2,10\n", ("1", "2"), ("10", "11")),
        ("user_id,item_id,rating\n1,10,5\n", ("1",), ("10",)),
        ("a b,\n\n c ,x y\r\n", ("a b", "c"), ("x y",)),
    ],
)
def test_a_file_names_users_and_items(
    tmp_path: Path, text: str, users: tuple[str, ...], items: tuple[str, ...]
) -> None:
    """Each id once, in order; a heading is skipped."""
    path = tmp_path / "ids"
    path.write_bytes(text.encode())
    assert read_ids(path) == (users, items)


@pytest.mark.parametrize("content", [b"", b"user,item\n", b"\n,5\n", b"\xff\xfe"])
def test_a_file_without_users_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    """The sentence says which file."""
    path = tmp_path / "ids.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"ids\.csv"):
        read_ids(path)
    with pytest.raises(DataError, match="nowhere"):
        read_ids(tmp_path / "nowhere")


async def _discover(
    tmp_path: Path, *, version: str = "none", model: Any = None, popular: int = 3, ids_file: Path | None = None
) -> Population:
    """Run discover against a stand-in service that knows two users."""

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/v1/model":
            return web.Response(body=json.dumps({"version": version} if model is None else model))
        if request.path == "/v1/popular":
            return web.json_response({"items": [{"item_id": f"p{n}"} for n in range(popular)]})
        source = "personal" if request.path.rsplit("/", 1)[-1] in _KNOWN else "popular"
        return web.json_response({"items": [{"item_id": "1", "source": source}]})

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    client = HttpClient("127.0.0.1", port, 8)
    try:
        return await discover(client, Target("127.0.0.1", port, ""), ids_file, tmp_path / "models")
    finally:
        await client.aclose()
        await runner.cleanup()


async def test_without_file_and_model_users_are_probed_and_items_are_the_popular_ones(tmp_path: Path) -> None:
    """Only ids with personal lists count as known, and the sources are named."""
    population = await _discover(tmp_path)
    assert set(population.users) == _KNOWN
    assert population.items == ("p0", "p1", "p2")
    assert "probing" in population.users_from
    assert "/v1/popular" in population.items_from


async def test_the_served_model_names_ids_if_it_was_published_here(tmp_path: Path) -> None:
    """A served version in the local models is read; another one is not."""
    ids = Vocabulary(["ann", "bob"]), Vocabulary(["x", "y", "z"])
    snapshot = ModelSnapshot(
        algorithm="svd",
        settings={},
        users=ids[0],
        items=ids[1],
        user_factors=np.zeros((2, 4), np.float32),
        item_factors=np.zeros((3, 4), np.float32),
        user_bias=np.zeros(2, np.float32),
        item_bias=np.zeros(3, np.float32),
        global_mean=3.0,
        rating_min=1.0,
        rating_max=5.0,
        history=csr_array(np.array([[0, 4, 0], [5, 0, 0]], np.float32)),
        popularity=np.ones(3, np.float32),
        data_as_of="2026-01-01T00:00:00.000Z",
    )
    version = publication.publish(tmp_path / "models", snapshot, data={}, measures={})
    population = await _discover(tmp_path, version=version)
    assert (population.users, population.items) == (("ann", "bob"), ("x", "y", "z"))
    assert version in population.users_from
    assert "probing" in (await _discover(tmp_path, version="svd-20000101T000000-abcd")).users_from


async def test_a_file_wins_and_lacking_items_come_from_the_service(tmp_path: Path) -> None:
    """A list of users alone is enough."""
    path = tmp_path / "ids"
    path.write_text("u1\nu2\n")
    population = await _discover(tmp_path, ids_file=path)
    assert (population.users, population.items) == (("u1", "u2"), ("p0", "p1", "p2"))
    assert str(path) in population.users_from


async def test_another_service_is_refused_in_a_sentence(tmp_path: Path) -> None:
    """One without JSON objects or without items."""
    with pytest.raises(RunError, match="not a JSON object"):
        await _discover(tmp_path, model=[1])
    with pytest.raises(RunError, match="no popular items"):
        await _discover(tmp_path, popular=0)


async def test_a_dead_target_is_a_sentence(tmp_path: Path, free_port: Callable[[], int]) -> None:
    """The sentence names the address."""
    port = free_port()
    with pytest.raises(RunError, match=rf"Nothing answers at http://127\.0\.0\.1:{port}"):
        await discover(HttpClient("127.0.0.1", port, 1), Target("127.0.0.1", port, ""), None, tmp_path)


def test_a_target_writes_ipv6_addresses_in_brackets() -> None:
    """In URLs and Host headers (RFC 3986)."""
    assert str(Target("::1", 8080, "/api")) == "http://[::1]:8080/api"
