"""The overload drill: what it counts, what it judges, and a short one of a whole installation."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ops.benchmarks.installations.open_loop import LoadRound, RawRequest, run_closed_loop, run_open_loop
from ops.benchmarks.installations.overload import OverloadResult, broken_promises, requests
from service.models.snapshot import ModelSnapshot
from tests.integration.balanced import new_installation


def judged(**changes: dict[str, Any]) -> list[str]:
    """Judge a round that holds every promise, with changes by kind."""
    found = LoadRound()
    found.tallies["list"].statuses.update({200: 100, 503: 300})
    found.tallies["event"].statuses.update({202: 60, 503: 10})
    found.tallies["health"].statuses.update({200: 5})
    found.tallies["ready"].statuses.update({200: 5, 504: 1})
    for kind, fields in changes.items():
        for name, value in fields.items():
            if name == "statuses":
                found.tallies[kind].statuses.clear()  # type: ignore[index]  # the names are the kinds
                found.tallies[kind].statuses.update(value)  # type: ignore[index]
            else:
                setattr(found.tallies[kind], name, value)  # type: ignore[index]
    return list(broken_promises([found]))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"list": {"statuses": {200: 1, 502: 2}}}, "lists were answered with other statuses"),
        ({"event": {"statuses": {504: 1}}}, "events were answered with other statuses"),
        ({"event": {"unexplained": 1}}, "had no Retry-After"),
        ({"list": {"broken": 3}}, "3 connections of lists were cut"),
        ({"list": {"static": 2}}, "2 lists were static"),
        ({"health": {"statuses": {200: 5, 503: 1}}}, "health was answered"),
        ({"event": {"statuses": {202: 1, 503: 9}}}, "90.0% of the events were refused, and 75.0% of the lists"),
    ],
)
def test_each_promise_is_checked_separately(changes: dict[str, dict[str, Any]], words: str | None) -> None:
    """A round that holds them all breaks none."""
    said = judged(**changes)
    assert (said == []) if words is None else any(words in sentence for sentence in said)


def test_goodput_is_the_rate_of_good_answers() -> None:
    """Static lists and refusals do not count."""
    peak, over = LoadRound(took_s=2.0), LoadRound(took_s=2.0)
    peak.tallies["list"].statuses[200] = 200
    over.tallies["list"].statuses.update({200: 200, 503: 900})
    over.tallies["list"].static = 20
    over.tallies["list"].due = 1200
    assert (over.tallies["list"].good, over.goodput_rps(), over.offered_rps()) == (180, 90.0, 600.0)
    assert OverloadResult([peak], [over]).goodput_ratio == 0.9


def test_most_requests_are_lists_and_some_are_not() -> None:
    """Every round has the same order."""
    kinds = [request.kind for request in requests([f"u{number}" for number in range(1000)])]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"list": 841, "event": 140, "health": 10, "ready": 9}


async def test_every_request_ends_in_one_way() -> None:
    """Answered, broken, late, or unsent for want of a connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with_body = b"HTTP/1.1 %b\r\nContent-Length: 2\r\n%b\r\n{}"
        try:
            while line := await reader.readline():
                await reader.readuntil(b"\r\n\r\n")
                if b"/cut" in line:
                    break
                if b"/never" in line:
                    await reader.read()  # until the client gives up
                refused = b"/refused" in line
                head = b"Retry-After: 1\r\n" if refused else b"X-Degraded: static\r\n" if b"/static" in line else b""
                writer.write(with_body % (b"503 Busy" if refused else b"200 OK", head))
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    paths = ("/ok", "/refused", "/static", "/cut", "/never")
    asked = [RawRequest("list", f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()) for path in paths]
    result = await run_open_loop("127.0.0.1", port, asked, rate_rps=500, connections=4, duration_s=0.4, patience_s=0.1)
    lists = result.tallies["list"]
    assert lists.due == sum(lists.statuses.values()) + lists.broken + lists.late + lists.unsent
    assert all((lists.good, lists.refused, lists.static, lists.broken, lists.late, lists.unsent))
    assert lists.unexplained == 0
    done = await run_closed_loop("127.0.0.1", port, asked[:1], connections=2, duration_s=0.1)
    assert done.tallies["list"].good == done.tallies["list"].due > 0
    server.close()


async def test_an_overloaded_installation_refuses_and_breaks_no_promise(
    tmp_path: Path,
    redis_server: Any,
    make_snapshot: Callable[..., ModelSnapshot],
    publish_snapshot: Callable[[Path, ModelSnapshot], str],
) -> None:
    """Excess requests are refused, lists before events, liveness never."""
    made = new_installation(tmp_path)
    made.program = (sys.executable, "-m", "ops")
    # Patient, so that however slow the machine is now, a replica that answers late is waited for.
    patience = {f"RECOLLECT_{name}_MS": "20000" for name in ("LIST_TIMEOUT", "LIST_BUDGET", "EVENTS_TIMEOUT")}
    made.settings |= {"RECOLLECT_REDIS_URL": redis_server.url, "RECOLLECT_REPLICAS": "1", "RECOLLECT_SPARES": "0"}
    made.settings |= patience
    publish_snapshot(made.home / "models", make_snapshot(n_users=500))
    try:
        await asyncio.to_thread(made.start_and_wait)
        asked = requests([f"u{number}" for number in range(500)])
        over = await run_open_loop(
            "127.0.0.1", made.port, asked, rate_rps=8000, connections=600, duration_s=1.5, patience_s=20.0
        )
    finally:
        await asyncio.to_thread(made.end)
    assert list(broken_promises([over])) == []
    assert over.tallies["list"].refused > 0
    assert over.tallies["list"].good > 0
    assert over.tallies["event"].good > 0
