"""Lines of a user whose id needs escaping in JSON, and erase events."""

from typing import Any

from telemetry.events import System, encode
from tests.support import sample_events

DAY = "date=2026-11-21"
BEFORE, REQUESTED, AFTER = (f"2026-11-21T01:02:03.{ms}Z" for ms in (456, 500, 501))
USER = 'zoë "the\\ owl"'


def line(seq: int, user_id: str | None, received_at: str = BEFORE, *, served: bool = False) -> bytes:
    changes: dict[str, Any] = {"event_id": f"ev-p-{seq:06d}", "user_id": user_id, "received_at": received_at}
    # The item has the same id as the user, so that all feedback holds the text.
    return encode(
        sample_events.served(**changes) if served else sample_events.feedback(**changes, item_id=USER),
        "p",
        1,
        seq,
    )


def erase(seq: int, user_id: str = USER, requested_at: str = REQUESTED, name: str = "erase-000001") -> bytes:
    event = System(
        event_id=name, tenant="default", client_time=None, received_at=requested_at, kind="erase", user_id=user_id
    )
    return encode(event, "p", 1, seq)
