"""The client for threads."""

import ssl
import time
from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

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
from service.client.connection_pool import ConnectionPool
from service.client.conversation import DEADLINE_S, RETRIES, Attempt, Outcome, Rules, converse
from service.client.inputs import Event, ItemRecord, ListOptions, ListQuery, PageOptions, SearchOptions

T = TypeVar("T")


class Client:
    """A client of one service; any number of threads may share it. It keeps connections open until `close`.

    Every method raises a `ClientError`; service/client/errors.py has them all.

    Args:
        url: The address of the service, such as "http://127.0.0.1:8080".
        api_key: The API key, if the service needs one.
        deadline_s: Seconds for a call, all attempts together; `within` changes it for some calls.
        retries: Further attempts after a broken connection, 502, 503 or 504.
        attempt_s: Seconds for an attempt that is not the last, after which another one follows on a new connection;
            None for all that is left. Set it where the address may move to another machine.
        max_idle: Connections that are kept open for later calls.
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
        max_idle: int = 8,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._rules = Rules(deadline_s, retries, attempt_s)
        self._pool = ConnectionPool(Address.parse(url, api_key), ssl_context, max_idle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    def within(self, deadline_s: float) -> "Client":
        """Return a client with another deadline and the same connections."""
        other = copy(self)
        other._rules = replace(self._rules, deadline_s=deadline_s)  # noqa: SLF001  # of the same class
        return other

    def recommend(self, user_id: str | None, n: int = N_DEFAULT, **options: Unpack[ListOptions]) -> Recommendations:
        """Return a user's list of n items; without a user, the popular items. `ListOptions` has the options."""
        return self._do(calls.recommend(user_id, n, options))

    def pages(
        self, user_id: str | None, n: int = N_DEFAULT, **options: Unpack[ListOptions]
    ) -> Iterator[Recommendations]:
        """Yield a user's list page by page, n items each, without repeating an item, until nothing is left."""
        while True:
            page = self.recommend(user_id, n, **options)
            yield page
            if page.next_page_token is None:
                return
            options["page_token"] = page.next_page_token

    def similar(self, item_id: str, n: int = N_DEFAULT, **options: Unpack[PageOptions]) -> Recommendations:
        """Return the n items nearest to an item."""
        return self._do(calls.similar(item_id, n, options))

    def recommend_many(self, queries: Iterable[ListQuery]) -> tuple[Recommendations, ...]:
        """Return up to 256 lists in one request, in the order of their queries; all of them or none."""
        return self._do(calls.recommend_many(queries)).lists

    def popular(
        self, n: int = N_DEFAULT, *, window: str | None = None, **options: Unpack[PageOptions]
    ) -> Recommendations:
        """Return the n most popular items, of all time or within a window such as "7d"."""
        return self._do(calls.popular(n, window, options))

    def send_events(self, events: Iterable[Event], *, key: str | None = None) -> Accepted:
        """Report actions of users, up to 1,000; all of them are accepted or none.

        Args:
            events: The events. They count once, however often they are sent under the same `event_id`.
            key: The Idempotency-Key, `[A-Za-z0-9_-]{8,64}`, for a caller that sends the same events again later; by
                default a new one.
        """
        return self._do(calls.send_events(events, key))

    def known_user(self, user_id: str, n: int = N_DEFAULT) -> KnownUser:
        """Return what lists of a user answer to, with the n latest interactions and events."""
        return self._do(calls.known_user(user_id, n))

    def erase_user(self, user_id: str) -> Erasure:
        """Erase a user from the archive and from every model, for good."""
        return self._do(calls.erase_user(user_id))

    def item(self, item_id: str) -> ItemDetails:
        """Return what is known of an item."""
        return self._do(calls.item(item_id))

    def search(
        self, query: str | None = None, n: int = N_DEFAULT, *, like: str | None = None, **options: Unpack[SearchOptions]
    ) -> FoundItems:
        """Search the catalogue for words, the last of which may be unfinished, or for items like one.

        Args:
            query: The words; None for a search by `like` alone.
            n: How many items.
            like: An item.
            options: `SearchOptions` has them.
        """
        return self._do(calls.search(query, like, n, options))

    def put_item(self, record: ItemRecord) -> ItemReceipt:
        """Write an item; it replaces an earlier record as a whole."""
        return self._do(calls.put_item(record))

    def put_items(self, records: Iterable[ItemRecord], *, key: str | None = None) -> Accepted:
        """Write several items, up to 1,000; all of them are accepted or none. `key` is as in `send_events`."""
        return self._do(calls.put_items(records, key))

    def delete_item(self, item_id: str) -> ItemReceipt:
        """Remove an item from every list."""
        return self._do(calls.delete_item(item_id))

    def model(self) -> ServedModel:
        """Return the served model."""
        return self._do(calls.model())

    def call(self, method: str, target: str, body: Any = None) -> Any:
        """Use a route that has no method here.

        Args:
            method: Such as "GET".
            target: Path and query, percent-encoded.
            body: JSON values; None for no body.

        Returns:
            The answer as JSON values.
        """
        return self._do(calls.other(method, target, body))

    def _do(self, call: Call[T]) -> T:
        conversation = converse(call, self._rules)
        outcome: Outcome | None = None
        try:
            while True:
                step = conversation.send(outcome)
                if isinstance(step, Attempt):
                    outcome = self._pool.exchange(call, step)
                else:
                    time.sleep(step.seconds)
        except StopIteration as end:
            result: T = end.value
            return result
