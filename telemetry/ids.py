"""Ids and times for the request path; each call takes well under a microsecond.

Invariant: two calls of `uuid7` never use the same random bits, across threads and forks.
"""

import os
import time

# The hexadecimal digit with the variant bits (10xx in binary), by random digit.
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
_REFILL = 256
_BYTES_PER_TAIL = 10
_MS_PER_S = 1000

# Formatted random tails. list.pop is atomic, so no two threads get the same one.
_tails: list[str] = []
# A forked child must not use its parent's tails.
os.register_at_fork(after_in_child=_tails.clear)

# (second, its text): replaced as one value, so that another thread never reads half of it.
_second: tuple[int, str] = (0, "1970-01-01T00:00:00")


def _refill() -> None:
    pool = os.urandom(_REFILL * _BYTES_PER_TAIL).hex()
    width = 2 * _BYTES_PER_TAIL
    for start in range(0, len(pool), width):
        digits = pool[start : start + width]
        _tails.append(f"7{digits[0:3]}-{_VARIANT[digits[3]]}{digits[4:7]}-{digits[7:19]}")


def uuid7() -> str:
    """Return a UUID of version 7 in its 36-character form: 48 bits of Unix milliseconds, then 74 random bits.

    Source: RFC 9562, section 5.7 (method without a counter: ids of one millisecond are not ordered).
    """
    while True:
        try:
            tail = _tails.pop()
        except IndexError:
            _refill()
            continue
        stamp = f"{time.time_ns() // 1_000_000:012x}"
        return f"{stamp[:8]}-{stamp[8:]}-{tail}"


def rfc3339_ms(unix_s: float) -> str:
    """Return a Unix time as RFC 3339 with milliseconds, rounded down, such as ``2026-11-21T01:02:03.456Z``.

    A float holds the milliseconds of a Unix time exactly until the year 2200.
    """
    global _second
    # Rounding to microseconds first keeps 0.007 from becoming 6 ms by its binary fraction.
    whole_s, micros = divmod(round(unix_s * 1_000_000), 1_000_000)
    second, text = _second
    if second != whole_s:
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole_s))
        _second = (whole_s, text)
    return f"{text}.{micros // _MS_PER_S:03d}Z"
