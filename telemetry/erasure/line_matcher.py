"""Matches lines and dead letters to the erasure requests they fall under (the rule of `erasure.falls_under`).

A dead letter falls under a request if any line in it does; data in it that cannot be decoded belongs to a user if the
id occurs in it as JSON spells it.
"""

import re
from collections.abc import Iterable
from typing import Any, Final

import orjson

from telemetry.archive.dead_letters import decode_letter
from telemetry.catalogue.commit import ErasureRequest
from telemetry.erasure.erasure import falls_under
from telemetry.errors import ArchiveError

_USER: Final = re.compile(rb'"user_id"\s*:\s*("(?:[^"\\]|\\.)*")')


class LineMatcher:
    """Finds the lines of some users; the cost of a line does not depend on their number.

    Args:
        requests: A user may have several; the last one decides.
    """

    def __init__(self, requests: Iterable[ErasureRequest]) -> None:
        self._last: dict[str, ErasureRequest] = {}
        for request in requests:
            other = self._last.get(request.user_id)
            if other is None or other.requested_at < request.requested_at:
                self._last[request.user_id] = request
        # As spelled in a line. `events.encode` has no other spelling; a foreign one contains a backslash.
        self._spelled = {orjson.dumps(user_id): request for user_id, request in self._last.items()}

    @property
    def requested(self) -> dict[str, str]:
        """By user id: when the last erasure was requested."""
        return {user_id: request.requested_at for user_id, request in self._last.items()}

    def may_match(self, data: bytes) -> bool:
        """Decide quickly whether any line in a block may match."""
        return b"\\" in data or not self._spelled.keys().isdisjoint(_USER.findall(data))

    def match(self, line: bytes) -> ErasureRequest | None:
        """Return the request that an event's line falls under, or None."""
        if not self.may_match(line):
            return None
        try:
            fields: dict[str, Any] = orjson.loads(line)
            request = self._last.get(fields["user_id"])
            return request if request is not None and falls_under(fields["received_at"], request.requested_at) else None
        except (ValueError, TypeError, KeyError):
            return None

    def match_letter(self, line: bytes) -> ErasureRequest | None:
        """Return the request that a dead letter's line falls under, or None; the letter may be damaged."""
        try:
            return self._match_data(decode_letter(line).data)
        except ArchiveError:
            return self._match_data(line)

    def _match_data(self, data: bytes) -> ErasureRequest | None:
        for line in data.splitlines(keepends=True):
            try:
                orjson.loads(line)
            except ValueError:
                for spelled in _USER.findall(line):
                    if (request := self._spelled.get(spelled)) is not None:
                        return request
            else:
                if (found := self.match(line)) is not None:
                    return found
        return None
