"""The examples of docs/client.md against a real replica set behind nginx."""

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from service.client import Client, ClientError, Event
from service.models.files import active_model
from tests.integration.installation import DATA, Up

PAGE = Path(__file__).resolve().parents[2] / "docs" / "client.md"
JAVA = PAGE.parent / "examples" / "Client.java"
MODULE = PAGE.parent / "examples" / "client.mjs"


def blocks(language: str) -> list[str]:
    """Return the fenced blocks of the page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    # Both roles; a model of factors has an embedding space.
    split = ("--algorithm", "ials", "--force", "--candidates", "1")
    made = Up(tmp_path_factory.mktemp("examples"), "--data", DATA, *split)
    try:
        made.wait_for("stop:")
        yield made
    finally:
        made.end()


def run(argv: list[str], up: Up, text: str, file: Path, *arguments: str) -> str:
    """Run an example at the address of an installation and return what it prints."""
    assert "http://127.0.0.1:8080" in text
    file.write_text(text.replace("http://127.0.0.1:8080", f"http://127.0.0.1:{up.port}"), encoding="utf-8")
    done = subprocess.run([*argv, str(file), *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Nearest(NamedTuple):
    """A vector as an argument of a program, and the items nearest to it, best first."""

    vector: str
    item_ids: list[str]
    scores: list[float]


def nearest(up: Up, user: str, barred: Callable[[dict[str, Any]], bool] = lambda _item: False) -> Nearest:
    """Find, by the files of the model alone, the five items nearest to a user among those that are not barred."""
    model = active_model.load(up.home / "models", 10.0)
    vector = model.user_factors[model.users.row_of[user]]
    scores = model.item_factors @ vector + model.item_bias
    with Client(f"http://127.0.0.1:{up.port}") as client:
        best = ((row, model.items.id_of[row]) for row in np.argsort(-scores).tolist())
        kept = [(id_, row) for row, id_ in best if not barred(client.call("GET", f"/v1/items/{id_}"))][:5]
    return Nearest(
        ",".join(map(str, vector.tolist())), [id_ for id_, _ in kept], [float(scores[row]) for _, row in kept]
    )


@pytest.mark.parametrize("text", blocks("python"), ids=["threads", "asyncio"])
def test_python_examples(up: Up, tmp_path: Path, text: str) -> None:
    """Each prints ten items, or two lists."""
    printed = run([sys.executable], up, text, tmp_path / "example.py")
    lines = printed.splitlines()
    assert len(lines) in {1, 10}
    if len(lines) == 10:
        assert all("{'title': 'The " in line for line in lines)
    else:
        personal, popular = (ast.literal_eval(f"[{part}]") for part in lines[0].strip("[]").split("] ["))
        assert len(personal) == len(popular) == 10


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not on PATH")
def test_the_javascript_examples(up: Up, tmp_path: Path) -> None:
    """The item that was bought, first in the first list, is gone from the second; then the items near a vector."""
    lists, candidates = blocks("js")
    node = str(shutil.which("node"))
    shutil.copy(MODULE, tmp_path)
    listed, after = (
        json.loads(line.replace("'", '"')) for line in _arrays(run([node], up, lists, tmp_path / "lists.mjs"))
    )
    assert len(listed) == len(after) == 5
    assert listed[0] not in after
    expected = nearest(up, "17", lambda item: item["attributes"]["year"] < 1960)
    printed = run([node], up, candidates, tmp_path / "candidates.mjs", expected.vector).split()
    assert printed[0::2] == expected.item_ids
    np.testing.assert_allclose([float(score) for score in printed[1::2]], expected.scores, rtol=1e-5)


def _arrays(printed: str) -> list[str]:
    """Return the arrays that console.log printed, each on a line."""
    return [re.sub(r"\s+", " ", array) for array in re.findall(r"\[.*?\]", printed, re.DOTALL)]


@pytest.mark.skipif(shutil.which("java") is None, reason="Java is not on PATH")
def test_the_java_example(up: Up, wait_until: Callable[..., None]) -> None:
    """Two lists of five items with titles, the second without what was bought; then the items near a vector."""
    expected = nearest(up, "23")
    argv = [str(shutil.which("java")), str(JAVA), f"http://127.0.0.1:{up.port}", "23 ü", expected.vector]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    listed, after, near = ([line.split("\t") for line in part.splitlines()] for part in done.stdout.split("\n\n"))
    assert len(listed) == len(after) == 5
    assert all(re.fullmatch(r"-?\d+\.\d{3}", score) and title for _, score, title in listed)
    assert listed[0][0] not in [item_id for item_id, _, _ in after]
    assert [item_id for item_id, _ in near] == expected.item_ids
    assert [score for _, score in near] == [f"{score:.3f}" for score in expected.scores]
    with Client(f"http://127.0.0.1:{up.port}") as client:
        # Another replica knows it a moment later.
        wait_until(lambda: client.known_user("23 ü").events, what="the purchase")
        assert [event.item_id for event in client.known_user("23 ü").events] == [listed[0][0]]


def test_the_command_prints_the_list_of_the_service(up: Up, wait_until: Callable[..., None]) -> None:
    """The same items and scores, from the files alone, once the event is archived."""
    with Client(f"http://127.0.0.1:{up.port}") as client:
        bought = client.recommend("17", 1).item_ids[0]
        client.send_events([Event("purchase", "17", bought)])

        def agree() -> bool:
            served = client.call("GET", "/v1/recommendations/17?n=10&fields=title")
            printed = json.loads(up.recollect("recommend", "17", "--json").stdout)
            del served["recommendation_id"], printed["recommendation_id"]
            return bool(served == printed and served["freshness"]["events_applied"] == 1)

        # The state snapshot is written some seconds after the event.
        wait_until(agree, 40)
        printed = json.loads(up.recollect("recommend", "17", "--json").stdout)
        assert bought not in {item["item_id"] for item in printed["items"]}


def test_no_call_fails_while_parts_are_killed(up: Up, wait_until: Callable[..., None]) -> None:
    """The client's one retry hides kill -9 of replicas of both roles and of an nginx, and each event is accepted."""
    with Client(f"http://127.0.0.1:{up.port}") as client:
        for name in ("replica-0", "replica-1", "candidates-2", "nginx-0"):
            pid = up.row(name).pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            failures: list[ClientError] = []
            for number in range(100):
                try:
                    client.recommend(str(number), 5)
                    assert client.send_events([Event("view", str(number), "1")]).accepted == 1
                except ClientError as error:
                    failures.append(error)
            assert not failures
            wait_until(up.ready)
    up.record_groups()
