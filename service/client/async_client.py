"""The client for asyncio."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable
from copy import copy
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import aiohttp
from yarl import URL

from service.client import calls
from service.client.address import Address
from service.client.answers import (
    Accepted,
    Erasure,
    FoundItems,
    ItemDetails,
    ItemReceipt,
    KnownUser,
    Recommendations,
    ServedModel,
)
from service.client.calls import N_DEFAULT, Call
from service.client.conversation import DEADLINE_S, RETRIES, Answer, Attempt, Broken, Outcome, Rules, TimedOut, converse
from service.client.inputs import Event, ItemRecord, ListOptions, ListQuery, PageOptions, SearchOptions

T = TypeVar("T")


class AsyncClient:
    """A client of one service; any number of tasks of one event loop may share it. `close` closes its connections.

    Every method raises a `ClientError`; service/client/errors.py has them all.

    Args:
        url: The address of the service, such as "http://127.0.0.1:8080".
        api_key: The API key, if the service needs one.
        deadline_s: Seconds for a call, all attempts together; `within` changes it for some calls.
        retries: Further attempts after a broken connection, 502, 503 or 504.
        attempt_s: Seconds for an attempt that is not the last, after which another one follows on a new connection;
            None for all that is left. Set it where the address may move to another machine.
        max_connections: Connections open at once; more calls wait for one, within their deadlines.
        ssl_context: How the certificate of an https address is checked; by default as the system does.

    Raises:
        ValueError: An argument cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        deadline_s: float = DEADLINE_S,
        retries: int = RETRIES,
        attempt_s: float | None = None,
        max_connections: int = 64,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._rules = Rules(deadline_s, retries, attempt_s)
        self._connections = _Connections(Address.parse(url, api_key), ssl_context, max_connections)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._connections.close()

    def within(self, deadline_s: float) -> "AsyncClient":
        """Return a client with another deadline and the same connections."""
        other = copy(self)
        other._rules = replace(self._rules, deadline_s=deadline_s)  # noqa: SLF001  # of the same class
        return other

    async def recommend(
        self, user_id: str | None, n: int = N_DEFAULT, **options: Unpack[ListOptions]
    ) -> Recommendations:
        """Return a user's list of n items; without a user, the popular items. `ListOptions` has the options."""
        return await self._do(calls.recommend(user_id, n, options))

    async def pages(
        self, user_id: str | None, n: int = N_DEFAULT, **options: Unpack[ListOptions]
    ) -> AsyncIterator[Recommendations]:
        """Yield a user's list page by page, n items each, without repeating an item, until nothing is left."""
        while True:
            page = await self.recommend(user_id, n, **options)
            yield page
            if page.next_page_token is None:
                return
            options["page_token"] = page.next_page_token

    async def similar(self, item_id: str, n: int = N_DEFAULT, **options: Unpack[PageOptions]) -> Recommendations:
        """Return the n items nearest to an item."""
        return await self._do(calls.similar(item_id, n, options))

    async def recommend_many(self, queries: Iterable[ListQuery]) -> tuple[Recommendations, ...]:
        """Return up to 256 lists in one request, in the order of their queries; all of them or none."""
        return (await self._do(calls.recommend_many(queries))).lists

    async def popular(
        self, n: int = N_DEFAULT, *, window: str | None = None, **options: Unpack[PageOptions]
    ) -> Recommendations:
        """Return the n most popular items, of all time or within a window such as "7d"."""
        return await self._do(calls.popular(n, window, options))

    async def send_events(self, events: Iterable[Event], *, key: str | None = None) -> Accepted:
        """Report actions of users, up to 1,000; all of them are accepted or none.

        Args:
            events: The events. They count once, however often they are sent under the same `event_id`.
            key: The Idempotency-Key, `[A-Za-z0-9_-]{8,64}`, for a caller that sends the same events again later; by
                default a new one.
        """
        return await self._do(calls.send_events(events, key))

    async def known_user(self, user_id: str, n: int = N_DEFAULT) -> KnownUser:
        """Return what lists of a user answer to, with the n latest interactions and events."""
        return await self._do(calls.known_user(user_id, n))

    async def erase_user(self, user_id: str) -> Erasure:
        """Erase a user from the archive and from every model, for good."""
        return await self._do(calls.erase_user(user_id))

    async def item(self, item_id: str) -> ItemDetails:
        """Return what is known of an item."""
        return await self._do(calls.item(item_id))

    async def search(
        self, query: str | None = None, n: int = N_DEFAULT, *, like: str | None = None, **options: Unpack[SearchOptions]
    ) -> FoundItems:
        """Search the catalogue for words, the last of which may be unfinished, or for items like one.

        Args:
            query: The words; None for a search by `like` alone.
            n: How many items.
            like: An item.
            options: `SearchOptions` has them.
        """
        return await self._do(calls.search(query, like, n, options))

    async def put_item(self, record: ItemRecord) -> ItemReceipt:
        """Write an item; it replaces an earlier record as a whole."""
        return await self._do(calls.put_item(record))

    async def put_items(self, records: Iterable[ItemRecord], *, key: str | None = None) -> Accepted:
        """Write several items, up to 1,000; all of them are accepted or none. `key` is as in `send_events`."""
        return await self._do(calls.put_items(records, key))

    async def delete_item(self, item_id: str) -> ItemReceipt:
        """Remove an item from every list."""
        return await self._do(calls.delete_item(item_id))

    async def model(self) -> ServedModel:
        """Return the served model."""
        return await self._do(calls.model())

    async def call(self, method: str, target: str, body: Any = None) -> Any:
        """Use a route that has no method here.

        Args:
            method: Such as "GET".
            target: Path and query, percent-encoded.
            body: JSON values; None for no body.

        Returns:
            The answer as JSON values.
        """
        return await self._do(calls.other(method, target, body))

    async def _do(self, call: Call[T]) -> T:
        conversation = converse(call, self._rules)
        outcome: Outcome | None = None
        try:
            while True:
                step = conversation.send(outcome)
                if isinstance(step, Attempt):
                    outcome = await self._connections.exchange(call, step)
                else:
                    await asyncio.sleep(step.seconds)
        except StopIteration as end:
            result: T = end.value
            return result


class _Connections:
    """The session of aiohttp, which begins with the first call, inside the event loop.

    A retry has a session of its own and so a new connection: others of the pool may lead to the same dead machine.
    """

    def __init__(self, address: Address, context: ssl.SSLContext | None, most: int) -> None:
        self._address = address
        self._context = context
        self._most = most
        self._session: aiohttp.ClientSession | None = None

    def _begin(self) -> aiohttp.ClientSession:
        tls = True if self._context is None else self._context
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._most, ssl=tls),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
        )
        # aiohttp sends a GET again by itself after a broken connection, and `converse` counts attempts. There is no
        # public way to turn it off; the client of its own tests does it like this.
        session._retry_connection = False  # noqa: SLF001
        return session

    async def exchange(self, call: Call[Any], attempt: Attempt) -> Outcome:
        """Send a call once and return what came of it."""
        if attempt.is_retry:
            async with self._begin() as session:
                return await self._exchange(session, call, attempt)
        if self._session is None or self._session.closed:
            self._session = self._begin()
        return await self._exchange(self._session, call, attempt)

    async def _exchange(self, session: aiohttp.ClientSession, call: Call[Any], attempt: Attempt) -> Outcome:
        url = URL(self._address.base_url + call.target, encoded=True)
        try:
            async with (
                asyncio.timeout(attempt.timeout_s),
                session.request(
                    call.method, url, data=call.body, headers=self._address.headers(call), allow_redirects=False
                ) as response,
            ):
                body = await response.read()
                headers = {name.lower(): value for name, value in response.headers.items()}
                return Answer(response.status, headers, body)
        except TimeoutError:
            return TimedOut()
        except (aiohttp.ClientError, OSError) as error:
            return Broken(str(error) or type(error).__name__)

    async def close(self) -> None:
        """Close the session, if it has begun."""
        if self._session is not None:
            await self._session.close()
