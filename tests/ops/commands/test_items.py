"""`recollect items`, against a replica's real application."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.commands import item_import, items
from ops.commands.item_import import BATCH_BYTES, batches
from ops.console.command_runner import run
from service.serving.replica.context import ReplicaContext
from tests.support.replicas.replica_app import Client, recorded_events

Call = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
def call(client: Client, capfd: pytest.CaptureFixture[str]) -> Call:
    async def command(*argv: str) -> tuple[int, str, str]:
        capfd.readouterr()
        url = str(client.make_url("/")).rstrip("/")
        code = await asyncio.to_thread(run, items.app, [*argv, "--url", url])
        return code, *capfd.readouterr()

    return command


def written(path: Path, *lines: object) -> str:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return str(path)


async def test_items_of_a_file_are_written_in_order(call: Call, context: ReplicaContext, tmp_path: Path) -> None:
    """Ids may be numbers; of an item that occurs twice the last record stays; blank lines do not count."""
    lines = [{"item_id": 7, "title": "first"}, {"item_id": "a/b", "hidden": True}, {"item_id": "7", "title": "last"}]
    path = written(tmp_path / "items.jsonl", lines[0], "", *lines[1:])
    assert (await call("import", path))[:2] == (0, "3 items written.\n")
    assert [event["item_id"] for event in recorded_events(context)] == ["7", "a/b", "7"]
    code, out, _ = await call("show", "7")
    assert (code, out.splitlines()[0]) == (0, "last (item 7)")
    code, out, _ = await call("show", "a/b", "--json")
    assert json.loads(out)["hidden"]
    code, _, err = await call("show", "unknown")
    assert (code, err) == (1, "recollect: The service answered 404: There is no item 'unknown'.\n")


async def test_bad_lines_are_reported_and_all_others_written(
    call: Call, context: ReplicaContext, tmp_path: Path
) -> None:
    """With their numbers and reasons, and exit status 1."""
    path = written(
        tmp_path / "items.jsonl",
        {"item_id": "a", "title": "A"},
        "{torn",
        {"title": "no id"},
        {"item_id": "b", "attributes": {"x": None}},
        '{"item_id": "c", "title": "one", "title": "two"}',
        {"item_id": "d", "name": "unknown"},
        {"item_id": "e", "attributes": {f"a{index}": ["x" * 250] * 99 for index in range(3)}},
        {"item_id": "f"},
    )
    code, out, err = await call("import", path, "--json")
    report = json.loads(out)
    assert (code, report["lines"], report["written"]) == (1, 8, 2)
    assert [(bad["line"], bad["message"].split(":")[0]) for bad in report["bad"]] == [
        (2, "The body is not JSON"),
        (3, "item_id"),
        (4, "attributes.x"),
        (5, "title"),
        (6, "name"),
        (7, "it has 75495 bytes, and an item may have 40000"),
    ]
    assert [event["item_id"] for event in recorded_events(context)] == ["a", "f"]
    code, out, err = await call("import", path)
    assert (code, out) == (1, "2 items written.\n")
    assert "line 4: attributes.x: must be a text" in err
    assert err.endswith("6 of 8 lines were left out: correct them and import the file again.\n")


async def test_a_refusal_names_the_line_to_continue_from(
    call: Call, context: ReplicaContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written before it stays written, and `--from-line` writes the rest."""
    monkeypatch.setattr(item_import, "BATCH_BYTES", 60)
    monkeypatch.setattr(items, "_RETRIES", 0)
    path = written(tmp_path / "items.jsonl", *({"item_id": f"i{index}", "title": "x" * 20} for index in range(3)))
    context.producer.close()
    code, _, err = await call("import", path)
    assert code == 1
    assert "all lines before 1 are written: continue with --from-line 1.\n" in err
    code, _, _ = await call("import", str(tmp_path / "absent"))
    assert code == 2


async def test_lines_before_the_first_one_are_skipped(call: Call, context: ReplicaContext, tmp_path: Path) -> None:
    """As an earlier import has written them."""
    path = written(tmp_path / "items.jsonl", *({"item_id": f"i{index}"} for index in range(5)))
    assert (await call("import", path, "--from-line", "4"))[0] == 0
    assert [event["item_id"] for event in recorded_events(context)] == ["i3", "i4"]


@given(st.lists(st.one_of(st.just("bad"), st.just(""), st.integers(0, 30_000)), max_size=40), st.integers(1, 5))
def test_every_line_is_in_one_batch(sizes: list[str | int], from_line: int) -> None:
    """Of a size that a request can have; a batch names its first line."""
    lines = [
        (size if isinstance(size, str) else json.dumps({"item_id": str(number), "attributes": fill(size)})).encode()
        + b"\n"
        for number, size in enumerate(sizes, 1)
    ]
    found = list(batches(lines, from_line))
    expected = [number for number, line in enumerate(lines, 1) if line.strip() and number >= from_line]
    seen: list[int] = []
    for batch in found:
        numbers = sorted([bad.line for bad in batch.bad] + [int(item["item_id"]) for item in batch.items])
        assert batch.n_lines == len(numbers) >= 1
        assert numbers[0] >= batch.first_line
        assert len(orjson.dumps({"items": batch.items})) <= BATCH_BYTES + 20
        seen += numbers
    assert seen == expected


def fill(size: int) -> dict[str, list[str]]:
    return {f"a{index}": ["x" * 100] * 90 for index in range(size // 9_000)}
