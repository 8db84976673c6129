"""Recent idempotency keys of clients, each with the body that it stands for.

Invariants: a key stands for one body from the moment its first request is being recorded; a request that is not
recorded leaves no entry; the table is bounded in number and age.

Best effort, on this replica alone: duplicates are kept out of the archive by event ids and contents. The table only
refuses a key that a client uses for two bodies; an undetected reuse is archived and marked.

draft-ietf-httpapi-idempotency-key-header-06, sections 2.6 and 2.7; the fingerprint is a digest of the body's bytes.
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from cachetools import TTLCache

from service.errors import Invalid

LIMIT_KEYS: Final = 10_000
AGE_S: Final = 86_400.0


@dataclass(slots=True)
class _Entry:
    digest: bytes
    attempts: int = 0
    recorded: bool = False


class IdempotencyTable:
    """The keys of one replica, each for `age_s` from its first use. A full table drops the least recently used."""

    def __init__(
        self, limit_keys: int = LIMIT_KEYS, age_s: float = AGE_S, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        # A key is never assigned twice, so its age counts from its first use.
        self._entries: TTLCache[str, _Entry] = TTLCache(limit_keys, age_s, clock_s)

    def __len__(self) -> int:
        return len(self._entries)

    @contextmanager
    def attempt(self, key: str | None, body: bytes) -> Iterator[None]:
        """Hold a key while its request is recorded; an error in the context means that it was not recorded.

        Raises:
            Invalid: The key stands for another body.
        """
        if key is None:
            yield
            return
        entry = self._entry(key, hashlib.blake2b(body, digest_size=16).digest())
        entry.attempts += 1
        try:
            yield
            entry.recorded = True
        finally:
            entry.attempts -= 1
            # Another attempt with the same body may be under way or recorded.
            if not (entry.recorded or entry.attempts) and self._entries.get(key) is entry:
                del self._entries[key]

    def _entry(self, key: str, digest: bytes) -> _Entry:
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry(digest)
        elif entry.digest != digest:
            raise Invalid(
                "Idempotency-Key: was sent with another body before; a new request needs a new key.",
                errors=[{"field": "Idempotency-Key", "message": "was sent with another body before"}],
            )
        return entry
