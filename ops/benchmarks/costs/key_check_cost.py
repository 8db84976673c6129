"""The processor time of an API key check: of `Gate.admit`, with a thousand keys and the headers that nginx sends.

The time of an empty loop is subtracted.
"""

import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from multidict import CIMultiDict, CIMultiDictProxy

from service.errors import Unauthorized
from service.security.api_key import new_key
from service.security.gate import Gate
from service.security.keyring import Keyring

_KEYS: Final = 1_000
_NS_PER_US: Final = 1_000


def measure(calls: int, rounds: int) -> dict[str, float]:
    """Return microseconds of processor time per request, by the kind of key; the median of the rounds."""
    now_s = time.time()
    made = [new_key(("recommend", "events"), now_s=now_s, expires_in_s=86_400) for _ in range(_KEYS)]
    text = made[_KEYS // 2][0]
    keyed, unkeyed = Gate(Keyring(record for _, record in made)), Gate()
    wrong = text[:-1] + ("A" if text[-1] != "A" else "B")
    cases = {
        "no keys": (unkeyed, _headers({})),
        "bearer": (keyed, _headers({"Authorization": f"Bearer {text}"})),
        "x-api-key": (keyed, _headers({"X-API-Key": text})),
        "refused": (keyed, _headers({"Authorization": f"Bearer {wrong}"})),
    }
    return {
        name: statistics.median(_us(partial(_admit, gate, headers), calls) for _ in range(rounds))
        for name, (gate, headers) in cases.items()
    }


def _headers(more: dict[str, str]) -> CIMultiDictProxy[str]:
    usual = {
        "Host": "shop.example",
        "X-Request-Id": "0" * 32,
        "X-Forwarded-For": "203.0.113.7",
        "Idempotency-Key": "ngx-" + "0" * 32,
        "User-Agent": "shop/1.0",
        "Accept": "application/json",
        "Accept-Encoding": "gzip",
    }
    return CIMultiDictProxy(CIMultiDict({**usual, **more}))


def _admit(gate: Gate, headers: CIMultiDictProxy[str]) -> None:
    with suppress(Unauthorized):
        gate.admit(headers, "recommend")


def _us(call: Callable[[], None], calls: int) -> float:
    def spent(work: Callable[[], None]) -> int:
        began = time.process_time_ns()
        for _ in range(calls):
            work()
        return time.process_time_ns() - began

    return (spent(call) - spent(lambda: None)) / calls / _NS_PER_US
