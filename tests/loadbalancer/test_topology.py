"""Addresses, and the rows of run/topology.json."""

import json
from pathlib import Path

import pytest

from loadbalancer import roster
from loadbalancer.roster import Row
from loadbalancer.topology import address, reachable

ROWS = [
    Row("redis", 4711, "127.0.0.1", 20001, None, "ready", 0, "/logs/redis.out"),
    Row("consumer", None, None, None, 20002, "backoff", 3, "/logs/consumer.out"),
]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("host", "text"), [("127.0.0.1", "127.0.0.1:80"), ("::1", "[::1]:80"), ("localhost", "localhost:80")]
)
def test_an_address_is_written_as_in_urls(host: str, text: str) -> None:
    """IPv6 in brackets."""
    assert address(host, 80) == text


@pytest.mark.parametrize(("host", "near"), [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("10.0.0.7", "10.0.0.7")])
def test_a_listener_on_every_address_is_reached_on_the_loopback(host: str, near: str) -> None:
    """A listener on a single address is reached at that address."""
    assert reachable(host) == near


def test_rows_are_written_and_read(home: Path) -> None:
    """The file is a JSON list with one object per part, which other programs read too."""
    roster.write(home, ROWS)
    assert roster.read(home) == ROWS
    raw = json.loads((home / "run" / "topology.json").read_text())
    assert [row["name"] for row in raw] == ["redis", "consumer"]
    assert raw[0]["admin_port"] is None
    assert {"name", "pid", "host", "port", "admin_port", "state", "restarts"} <= set(raw[0])
    assert [path.name for path in (home / "run").iterdir()] == ["topology.json"]


@pytest.mark.parametrize("text", [None, "", "{", "[1]", '[{"name": "redis"}]'])
def test_a_file_that_is_no_roster_reads_as_empty(home: Path, text: str | None) -> None:
    """As if nothing ran."""
    if text is not None:
        roster.path_in(home).write_text(text)
    assert roster.read(home) == []


def test_removing_twice_is_no_error(home: Path) -> None:
    """The rows are gone."""
    roster.write(home, ROWS)
    roster.remove(home)
    roster.remove(home)
    assert roster.read(home) == []
