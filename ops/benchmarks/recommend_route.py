"""The recommend route against an aiohttp hello world.

Invariant: the same generator drives both servers with the same number of connections, in alternating rounds, so that a
drift of the machine cancels out. Only the ratio of neighbouring rounds is a result. Telemetry is on: the replica ships
every list to a real Redis and a consumer archives it, both on the generator's core. No round of hello world begins
before the events of the round before are archived.
"""

import asyncio
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from ops.benchmarks.workbench import HOST
from ops.load.closed_loop import Throughput, drive

HEADINGS: Final = ("server on one core", "requests/s, median", "least", "most")
_WARMUP_S: Final = 1.0
_MAX_USERS: Final = 20_000


@dataclass(frozen=True)
class Comparison:
    """All rounds of one benchmark, in pairs."""

    hello: list[Throughput]
    recommend: list[Throughput]

    @property
    def ratio(self) -> float:
        """The median of the pairs' ratios, recommend to hello."""
        return statistics.median(self.pair_ratios)

    @property
    def pair_ratios(self) -> list[float]:
        """One ratio per pair of rounds."""
        pairs = zip(self.recommend, self.hello, strict=True)
        return [recommend.requests_per_s / hello.requests_per_s for recommend, hello in pairs]

    def as_json(self) -> dict[str, Any]:
        """Return the ratio, medians and rounds as plain values."""
        return {
            "ratio": round(self.ratio, 4),
            "pair_ratios": [round(ratio, 4) for ratio in self.pair_ratios],
            "hello": _side(self.hello),
            "recommend": _side(self.recommend),
        }


def _side(rounds: list[Throughput]) -> dict[str, Any]:
    rates = [round(one.requests_per_s, 1) for one in rounds]
    failed = sum(one.failed for one in rounds)
    share = max(one.generator_share for one in rounds)
    return {
        "requests_per_s": statistics.median(rates),
        "rounds": rates,
        "failed": failed,
        "generator_share": round(share, 2),
    }


def compare(
    *,
    hello: tuple[int, Sequence[bytes]],
    recommend: tuple[int, Sequence[bytes]],
    rounds: int,
    seconds: float,
    connections: int,
    settle: Callable[[], None] = lambda: None,
    on_progress: Callable[[str], None] = lambda _sentence: None,
) -> Comparison:
    """Drive two servers, given by port and requests, in turns; `settle` is called after each round of the replica."""
    import uvloop

    results: dict[int, list[Throughput]] = {hello[0]: [], recommend[0]: []}
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for index in range(rounds):
            for port, requests in (hello, recommend) if index % 2 == 0 else (recommend, hello):
                figures = runner.run(
                    drive(HOST, port, requests, connections=connections, warmup_s=_WARMUP_S, duration_s=seconds)
                )
                results[port].append(figures)
                if port == recommend[0]:
                    settle()
            rates = [results[port][-1].requests_per_s for port in (recommend[0], hello[0])]
            on_progress(f"pair {index + 1} of {rounds}: recommend {rates[0]:,.0f}/s, hello {rates[1]:,.0f}/s")
    return Comparison(hello=results[hello[0]], recommend=results[recommend[0]])


def list_requests(users: Sequence[str], seed: int) -> list[bytes]:
    """Return one GET of the recommend route per user, for at most 20,000 users in a random order."""
    rng = random.Random(seed)  # noqa: S311  # chance that can be repeated, not secrets
    chosen = rng.sample(users, min(len(users), _MAX_USERS))
    return [get(f"/v1/recommendations/{quote(user_id, safe='')}?n=10") for user_id in chosen]


def get(path: str) -> bytes:
    """Return the bytes of a GET."""
    return f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nAccept: */*\r\n\r\n".encode()


def rows(figures: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield the rows of a table under `HEADINGS`, and those of the ratio and of telemetry."""
    for name in ("hello", "recommend"):
        rates = figures[name]["rounds"]
        yield name, *(f"{rate:,.0f}" for rate in (figures[name]["requests_per_s"], min(rates), max(rates)))
    ratios = figures["pair_ratios"]
    yield "recommend / hello", *(f"{ratio:.3f}" for ratio in (figures["ratio"], min(ratios), max(ratios)))
    for name, count in figures["telemetry"].items():
        yield f"events {name}", f"{count:,}", "", ""
