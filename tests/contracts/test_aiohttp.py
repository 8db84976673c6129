"""The internals of aiohttp that `service.serving.http.protocol` depends on."""

import aiohttp
from aiohttp import web

from service.serving.http.protocol import Protocol

# Read aiohttp/web_protocol.py of a new version before it is added here: `start` must still set `_waiter` only while it
# waits for a request, keep parsed requests in `_messages`, and close an idle connection at
# `_next_keepalive_close_time`.
READ_VERSIONS = ("3.14.",)
PRIVATE = {
    "_waiter",
    "_messages",
    "_close",
    "_force_close",
    "_next_keepalive_close_time",
    "_keepalive_timeout",
}


def test_the_version_of_aiohttp_is_one_whose_connection_was_read() -> None:
    """A refusal before parsing is correct only with the state machine of these versions."""
    assert aiohttp.__version__.startswith(READ_VERSIONS)


def test_the_connection_has_the_private_attributes_and_no_name_of_the_subclass() -> None:
    """They are slots, so a renamed one would fail at the first request; a shared one would be overwritten."""
    slots = set(web.RequestHandler.__slots__)
    assert slots >= PRIVATE
    overridden = {"data_received", "connection_lost", "handle_error"}
    own = {name for name in vars(Protocol) if not name.startswith("__")} - overridden
    assert own.isdisjoint(dir(web.RequestHandler))
