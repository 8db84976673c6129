"""How an answer says that telemetry accepted events, or refused them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from aiohttp import web

from service.api import wire
from service.errors import Unavailable
from service.serving.http import request_inputs
from telemetry.errors import BadEventError, EventsRefusedError


@contextmanager
def translated_telemetry_errors() -> Iterator[None]:
    """Turn refusals of telemetry into answers.

    Raises:
        Invalid: An event cannot be written.
        Unavailable: There is no room, or the disk refuses.
    """
    try:
        yield
    except BadEventError as error:
        raise wire.invalid_field("events", f"cannot be recorded: {str(error).removesuffix('.')}") from None
    except EventsRefusedError as refusal:
        raise Unavailable(
            "This cannot be recorded at the moment; it is safe to try again.",
            retry_after_s=max(1, round(refusal.retry_after_s)),
        ) from None


def accepted(receipt: Mapping[str, Any]) -> web.Response:
    """Return the answer with a receipt."""
    return web.Response(body=wire.encode(receipt), status=202, content_type=request_inputs.JSON)
