"""Idempotency keys that clients sent of late, and what they were sent with.

Invariants: a key stands for one body, from the moment its first request is being recorded; a request that was not
recorded leaves no entry; the table never holds more than its limit, nor an entry that is older than its age.

Best effort, on this replica alone: what keeps events from being archived twice are their ids and contents, not this
table. It only tells a client that uses one key for two bodies; where it cannot, both are archived and marked.

draft-ietf-httpapi-idempotency-key-header-06, sections 2.6 and 2.7; the fingerprint is a digest of the body's bytes.
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from service.errors import Invalid

LIMIT_KEYS: Final = 10_000
AGE_S: Final = 86_400.0


@dataclass(slots=True)
class _Entry:
    digest: bytes
    expires_at_s: float
    attempts: int = 0
    recorded: bool = False


class IdempotencyTable:
    """The keys of one replica.

    Args:
        limit_keys: How many are held; the oldest gives way.
        age_s: How long one is held, in seconds.
        clock_s: Monotonic seconds.
    """

    def __init__(
        self, limit_keys: int = LIMIT_KEYS, age_s: float = AGE_S, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit_keys = limit_keys
        self._age_s = age_s
        self._clock_s = clock_s
        # In order of age: an entry is never renewed.
        self._entries: dict[str, _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    @contextmanager
    def attempt(self, key: str | None, body: bytes) -> Iterator[None]:
        """Hold a key while its request is recorded; leaving by an error means that it was not.

        Args:
            key: The client's Idempotency-Key; None where it sent none.
            body: The request's body.

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
            # Another attempt with the same body may be under way, or have got through.
            if not (entry.recorded or entry.attempts) and self._entries.get(key) is entry:
                del self._entries[key]

    def _entry(self, key: str, digest: bytes) -> _Entry:
        now_s = self._clock_s()
        while self._entries:
            oldest = next(iter(self._entries))
            if self._entries[oldest].expires_at_s > now_s:
                break
            del self._entries[oldest]
        entry = self._entries.get(key)
        if entry is None:
            if len(self._entries) >= self._limit_keys:
                del self._entries[next(iter(self._entries))]
            entry = self._entries[key] = _Entry(digest, now_s + self._age_s)
        elif entry.digest != digest:
            raise Invalid(
                "Idempotency-Key: was sent with another body before; a new request needs a new key.",
                errors=[{"field": "Idempotency-Key", "message": "was sent with another body before"}],
            )
        return entry
