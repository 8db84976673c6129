"""The users and items of a load test: from a file, the served model, or the running service.

Invariant: every id comes from one named source, which the report shows.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from ops.load.http_connection import Broken, HttpClient
from service.errors import DataError, ModelError, RunError

_PROBED_USERS = 200
_PROBES_AT_ONCE = 8
_POPULAR_ITEMS = 500
_DISCOVERY_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Population:
    """The ids a test draws from, and their sources; `users` may be empty, `items` never."""

    users: tuple[str, ...]
    items: tuple[str, ...]
    users_from: str
    items_from: str


@dataclass(frozen=True)
class Target:
    """The service under test; `base_path` precedes the routes and has no slash at its end."""

    host: str
    port: int
    base_path: str
    key: str | None = field(default=None, repr=False)

    @property
    def headers(self) -> str:
        """The header lines Host (RFC 9110 section 7.2) and, with a key, Authorization."""
        key = "" if self.key is None else f"Authorization: Bearer {self.key}\r\n"
        return f"Host: {_bracketed(self.host)}:{self.port}\r\n{key}"

    def __str__(self) -> str:
        return f"http://{_bracketed(self.host)}:{self.port}{self.base_path}"


async def discover(client: HttpClient, target: Target, ids_file: Path | None, models_dir: Path) -> Population:
    """Find the ids to request.

    Args:
        client: Connections to the target.
        target: The service under test.
        ids_file: Lines of `user[,item]`; it wins over the other sources.
        models_dir: The models of this machine, used if the served version is among them.

    Raises:
        DataError: The file cannot be read or names no user.
        RunError: Nothing answers at the target, or it names no items.
    """
    async with _answer_limit(target):
        model = await _get(client, target, "/v1/model")
    # Outside of the limit: on a busy machine, reading files takes long.
    if ids_file is not None:
        users, items = read_ids(ids_file)
        users_from = items_from = f"the file {ids_file}"
    elif (local := await asyncio.to_thread(_published, models_dir, str(model.get("version", "")))) is not None:
        users, items = local
        users_from = items_from = f"the served model {model['version']} in {models_dir}"
    else:
        async with _answer_limit(target):
            users, items = await _probed_users(client, target), ()
        users_from = f"probing the ids 1 to {_PROBED_USERS}" if users else "no source: none is known"
        items_from = ""
    if not items:
        async with _answer_limit(target):
            items, items_from = await _popular_items(client, target), "GET /v1/popular of the service"
    return Population(users, items, users_from, items_from)


@asynccontextmanager
async def _answer_limit(target: Target) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(_DISCOVERY_TIMEOUT_S):
            yield
    except TimeoutError:
        raise RunError(f"{target} did not answer within {_DISCOVERY_TIMEOUT_S:g} s.") from None


def read_ids(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Read a file of `user[,item]` lines; a first line beginning with `user` is a heading.

    Returns:
        The different user ids and the different item ids, in order of appearance.

    Raises:
        DataError: The file cannot be read, is not UTF-8, or names no user.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The ids file {path} cannot be read: {error}.") from error
    if lines and lines[0].split(",")[0].strip().lower() in {"user", "user_id", "userid"}:
        del lines[0]
    users: dict[str, None] = {}
    items: dict[str, None] = {}
    for line in lines:
        user_id, _, rest = line.partition(",")
        item_id = rest.partition(",")[0]
        if user_id.strip():
            users[user_id.strip()] = None
        if item_id.strip():
            items[item_id.strip()] = None
    if not users:
        raise DataError(f"The ids file {path} names no user; its lines have the form user[,item].")
    return tuple(users), tuple(items)


def _published(models_dir: Path, version: str) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Return the users and items of a version in `models_dir`; None if it is missing or damaged."""
    from service.models.files import artefact, versions

    if version not in versions.published(models_dir):
        return None
    try:
        snapshot = artefact.load(models_dir / version)
    except ModelError:
        return None
    return tuple(snapshot.users.id_of), tuple(snapshot.items.id_of)


async def _probed_users(client: HttpClient, target: Target) -> tuple[str, ...]:
    """Return the ids from 1 to 200 that get personal recommendations."""
    gate = asyncio.Semaphore(_PROBES_AT_ONCE)

    async def is_known(user_id: str) -> bool:
        async with gate:
            body = await _get(client, target, f"/v1/recommendations/{user_id}?n=1")
        return any(item.get("source") == "personal" for item in body.get("items", ()))

    candidates = [str(number) for number in range(1, _PROBED_USERS + 1)]
    known = await asyncio.gather(*map(is_known, candidates))
    return tuple(user_id for user_id, yes in zip(candidates, known, strict=True) if yes)


async def _popular_items(client: HttpClient, target: Target) -> tuple[str, ...]:
    body = await _get(client, target, f"/v1/popular?n={_POPULAR_ITEMS}")
    items = tuple(str(item["item_id"]) for item in body.get("items", ()))
    if not items:
        raise RunError(f"{target} names no popular items, and events need items.")
    return items


async def _get(client: HttpClient, target: Target, path: str) -> dict[str, Any]:
    wire = f"GET {target.base_path}{path} HTTP/1.1\r\n{target.headers}Accept: application/json\r\n\r\n"
    answer = await client.exchange(wire.encode())
    if isinstance(answer, Broken):
        raise RunError(
            f"Nothing answers at {target}: {answer.detail}. Start it with `recollect up`, or give another --url."
        )
    if answer.status in {401, 403}:
        raise RunError(f"{target} requires an API key with the scope recommend (GET {path}): pass one with --key-file.")
    if answer.status != 200:
        raise RunError(f"{target} answered GET {path} with status {answer.status}; is it Recollect, and is it ready?")
    try:
        body = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        raise RunError(f"{target} answered GET {path} with a body that is not a JSON object; is it Recollect?")
    return body


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
