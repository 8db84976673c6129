"""The Python client of the HTTP API: `Client` for threads, `AsyncClient` for asyncio.

It needs the standard library, and aiohttp for `AsyncClient`, and imports nothing else of this distribution.
"""

from service.client.answers import (
    Accepted,
    Because,
    BecauseItem,
    Erasure,
    FieldError,
    Freshness,
    Interaction,
    Item,
    ItemDetails,
    ItemReceipt,
    KnownUser,
    Recommendations,
    ServedModel,
    Shortfall,
)
from service.client.async_client import AsyncClient
from service.client.client import Client
from service.client.errors import (
    BadAnswer,
    ClientError,
    ConnectionFailed,
    DeadlineExceeded,
    Invalid,
    NotFound,
    Refused,
    TooManyRequests,
    Unauthorized,
    Unavailable,
)
from service.client.inputs import Boost, Event, ItemRecord, ListOptions, ListQuery, PageOptions, Pin, SessionItem

__all__ = [
    "Accepted",
    "AsyncClient",
    "BadAnswer",
    "Because",
    "BecauseItem",
    "Boost",
    "Client",
    "ClientError",
    "ConnectionFailed",
    "DeadlineExceeded",
    "Erasure",
    "Event",
    "FieldError",
    "Freshness",
    "Interaction",
    "Invalid",
    "Item",
    "ItemDetails",
    "ItemReceipt",
    "ItemRecord",
    "KnownUser",
    "ListOptions",
    "ListQuery",
    "NotFound",
    "PageOptions",
    "Pin",
    "Recommendations",
    "Refused",
    "ServedModel",
    "SessionItem",
    "Shortfall",
    "TooManyRequests",
    "Unauthorized",
    "Unavailable",
]
