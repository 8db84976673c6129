"""From data with attributes of users to lists at the edge: a pair of towers is trained, served, and answers to people.

Each user of the data belongs to a group that likes one half of the items and dislikes the other.
"""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from service.client import Client, Event, Recommendations
from tests.integration.installation import Up

pytest.importorskip("torch")

_GROUPS = ("north", "south")
_ITEMS = [f"{group}-{number}" for group in _GROUPS for number in range(20)]


def write_data(folder: Path) -> Path:
    """Write 120 users with ratings of 14 of 40 items each, and what is known of all items and of two users in three."""
    folder.mkdir()
    draw = random.Random(3)
    with (folder / "ratings.csv").open("w") as ratings, (folder / "users.csv").open("w") as users:
        ratings.write("user,item,rating,timestamp\n")
        users.write("user,region\n")
        for user in range(120):
            group = _GROUPS[user % 2]
            if user % 3:
                users.write(f"{user},{group}\n")
            for number, item in enumerate(draw.sample(_ITEMS, 14)):
                rating = draw.choice((4, 5)) if item.startswith(group) else draw.choice((1, 2))
                ratings.write(f"{user},{item},{rating},{1_600_000_000 + 1000 * user + number}\n")
    with (folder / "items.csv").open("w") as items:
        items.write("item,title,climate\n")
        items.writelines(f"{item},The {item},{'cold' if item.startswith('north') else 'warm'}\n" for item in _ITEMS)
    return folder


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("towers")
    data = write_data(folder / "data")
    made = Up(folder, "--data", str(data), "--algorithm", "two_tower_rating", "--force")
    try:
        made.wait_for("stop:")
        # What is served lives by its files alone.
        shutil.rmtree(data)
        yield made
    finally:
        made.end()


@pytest.fixture
def client(up: Up) -> Iterator[Client]:
    with Client(f"http://127.0.0.1:{up.port}", deadline_s=10) as client:
        yield client


def likes(item_ids: list[str], group: str) -> int:
    """Count the items of a group among ten."""
    assert len(item_ids) == 10
    return sum(item.startswith(group) for item in item_ids)


def test_a_trained_user_gets_ten_items(up: Up, client: Client) -> None:
    """Of what they like and have not rated, with titles, from the towers that were trained."""
    listed = client.recommend("0", 10, fields=["title"])
    assert listed.model.startswith("two_tower_rating-")
    assert {item.source for item in listed.items} == {"personal"}
    assert all(item.fields == {"title": f"The {item.item_id}"} for item in listed.items)
    liked = [item for item in listed.item_ids if item.startswith("north")]
    # Those first, until none is left that the user has not rated.
    assert listed.item_ids[: len(liked)] == liked
    assert len(liked) >= 3


@pytest.mark.parametrize("group", _GROUPS)
def test_the_list_of_a_user_nobody_has_seen_follows_features(client: Client, group: str) -> None:
    """What is known of a visitor at this moment decides the list, and the answer says that it did."""
    request = {"user_id": f"visitor from the {group}", "n": 10, "user_features": {"region": group, "shoe": 44}}
    listed = client.call("POST", "/v1/recommendations", request)
    assert listed["user_features"] == {"used": ["region"], "unknown": ["shoe"]}
    assert likes([item["item_id"] for item in listed["items"]], group) >= 9


def test_the_list_of_a_new_user_follows_events(client: Client, wait_until: Callable[..., None]) -> None:
    """Ratings of someone new of whom nothing else is known decide the list, on whichever replica it is made."""
    liked = [Event("rating", "new", f"south-{number}", value=5.0) for number in range(6)]
    disliked = [Event("rating", "new", f"north-{number}", value=1.0) for number in range(6)]
    client.send_events([*liked, *disliked])

    def lists() -> list[Recommendations]:
        """Return four lists, from both replicas in turns or nearly so."""
        return [client.recommend("new", 10) for _ in range(4)]

    # The other replica knows the events a moment later.
    wait_until(lambda: all(listed.freshness.events_applied == 12 for listed in lists()), what="the events")
    assert min(likes(listed.item_ids, "south") for listed in lists()) >= 9
    session = client.recommend(None, 10, session=["north-1", "north-2", "north-3"])
    assert not {"north-1", "north-2", "north-3"} & set(session.item_ids)


def test_the_served_model_tells_what_it_is(up: Up, client: Client) -> None:
    """Its embedding space, its features and its learning curve are published with it."""
    assert "region" in client.call("GET", "/v1/model")["user_features"]
    shown = json.loads(up.recollect("models", "show", client.model().version, "--json").stdout)
    assert shown["learning_curve"]


def test_a_replica_stays_small_and_needs_no_torch(up: Up) -> None:
    """300 MB at most: towers are evaluated in NumPy."""
    for name in ("replica-0", "replica-1"):
        pid = up.row(name).pid
        assert pid is not None
        assert psutil.Process(pid).memory_info().rss < 300_000_000
        mapped = Path(f"/proc/{pid}/maps").read_text()
        assert "numpy" in mapped
        assert "torch" not in mapped
