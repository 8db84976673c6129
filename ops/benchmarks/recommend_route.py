"""The recommend route and its yardstick, driven in turns: the rounds, their ratio and how they are shown.

The invariant: both servers are driven by the same generator with the same number of connections, in rounds that
alternate, so that a drift of the machine cancels out; only the ratio of neighbouring rounds is a result.
"""

import asyncio
import json
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from ops.benchmarks.workbench import HOST
from ops.console.terminal import console
from ops.load.closed_loop import Throughput, drive

_WARMUP_S: Final = 1.0
_ASKED_USERS: Final = 20_000


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
        return [ours.requests_per_s / theirs.requests_per_s for ours, theirs in pairs]

    def as_json(self) -> dict[str, Any]:
        """Return medians, rounds and the ratio as plain values."""
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
    say: Callable[[str], None] = lambda _sentence: None,
) -> Comparison:
    """Drive two servers in turns.

    Args:
        hello: The yardstick's port and the requests to it.
        recommend: The other server's port and the requests to it.
        rounds: Pairs of rounds; which server begins alternates, so that a drift of the machine cancels out.
        seconds: Length of a round.
        connections: Kept-alive connections.
        settle: Called after each round of the other server; waits until what that set going is done.
        say: Told of each pair.
    """
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
            ours, theirs = results[recommend[0]][-1].requests_per_s, results[hello[0]][-1].requests_per_s
            say(f"pair {index + 1} of {rounds}: recommend {ours:,.0f}/s, hello {theirs:,.0f}/s")
    return Comparison(hello=results[hello[0]], recommend=results[recommend[0]])


def list_requests(users: Sequence[str], seed: int) -> list[bytes]:
    """Return one GET of the recommend route per user, for at most 20,000 users in a random order."""
    rng = random.Random(seed)  # noqa: S311  # chance that can be repeated, not secrets
    chosen = rng.sample(users, min(len(users), _ASKED_USERS))
    return [get(f"/v1/recommendations/{quote(user_id, safe='')}?n=10") for user_id in chosen]


def get(path: str) -> bytes:
    """Return the bytes of a GET."""
    return f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nAccept: */*\r\n\r\n".encode()


def show(comparison: Comparison, context: dict[str, Any], *, as_json: bool) -> None:
    """Print a comparison with what a reader needs to judge it, as tables or as one JSON object."""
    figures = comparison.as_json()
    if as_json:
        print(json.dumps(figures | context, indent=2))
        return
    from rich.table import Table

    model, settings = context["model"], context["settings"]
    title = f"{settings['data']}: {model['users']} users, {model['items']} items, {model['factors']} factors"
    table = Table(title=title)
    for heading in ("server on one core", "requests/s, median", "least", "most"):
        table.add_column(heading, justify="left" if heading.startswith("server") else "right")
    for name in ("hello", "recommend"):
        rates = figures[name]["rounds"]
        table.add_row(name, *(f"{rate:,.0f}" for rate in (figures[name]["requests_per_s"], min(rates), max(rates))))
    out = console(soft_wrap=True)
    out.print(table)
    least, most = min(figures["pair_ratios"]), max(figures["pair_ratios"])
    out.print(f"recommend / hello: {figures['ratio']:.3f} (pairs {least:.3f} to {most:.3f})")
    out.print("events: " + ", ".join(f"{count:,} {name}" for name, count in context["telemetry"].items()))
    out.print(", ".join(context["machine"].values()))
