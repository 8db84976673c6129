"""`recollect recommend`, `similar` and `predict` answer from the files of an installation."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.config import Config
from service.models.files import active_model, artefact
from service.models.ranking import scoring
from service.models.ranking.scoring import TopNRequest
from service.models.snapshot import ModelSnapshot
from service.training import pipeline
from tests.support.archives.stored_state import with_state

Recollect = Callable[..., tuple[int, str, str]]
DATA = "demo:60x40x900"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Homes with an active model each: one that ranks, one that predicts ratings."""
    homes = {}
    for name in ("ease", "svd"):
        homes[name] = tmp_path_factory.mktemp(name)
        pipeline.train(Config(home=homes[name]), data=DATA, algorithm=name, activate=True)
    return homes


def model_in(home: Path) -> ModelSnapshot:
    version = active_model.version(home / "models")
    assert version is not None
    return artefact.load(home / "models" / version)


def answer(told: tuple[int, str, str]) -> Any:
    code, out, err = told
    assert (code, err) == (0, "")
    return json.loads(out)


def test_features_of_a_visitor_make_a_list(trained: dict[str, Path], recollect: Recollect) -> None:
    """A favourite category decides it; what the model does not know is named."""
    home = trained["ease"]
    popular = answer(recollect(home, "recommend", "--json"))
    genres = [
        item["fields"]["genres"]
        for item in answer(recollect(home, "recommend", "--json", "--fields", "genres"))["items"]
    ]
    wanted = genres[-1][0]
    found = answer(
        recollect(home, "recommend", "--feature", f"favourite_genres={wanted}", "--feature", "age=27", "--json")
    )
    assert found["user_features"] == {"used": ["favourite_genres"], "unknown": ["age"]}
    assert found["items"] != popular["items"]
    listed = answer(
        recollect(home, "recommend", "--feature", f'favourite_genres=["{wanted}"]', "--json", "--fields", "genres")
    )
    assert [item["item_id"] for item in listed["items"]] == [item["item_id"] for item in found["items"]]
    code, out, _ = recollect(home, "recommend", "--feature", f"favourite_genres={wanted}", "--feature", "age=27")
    assert code == 0
    assert "does not know these features, or their values: age." in out
    assert "A visitor with these features" in out
    for wrong, why in (
        ("age", "give NAME=VALUE"),
        ("a b=3", "must be a letter or _"),
        ('age={"a": 1}', "must be a text"),
    ):
        code, _, err = recollect(home, "recommend", "--feature", wrong)
        assert code == 2
        assert why in err


@pytest.mark.parametrize("name", ["ease", "svd"])
def test_a_list_is_that_of_the_model(trained: dict[str, Path], recollect: Recollect, name: str) -> None:
    """The unseen items in the order of a replica, with their titles; nothing is recorded."""
    home = trained[name]
    before = sorted(home.rglob("*"))
    snapshot = model_in(home)
    (expected,) = scoring.personal(snapshot, [TopNRequest(snapshot.users.row_of["5"], 10)])
    found = answer(recollect(home, "recommend", "5", "--json"))
    assert [item["item_id"] for item in found["items"]] == [snapshot.items.id_of[row] for row in expected.rows]
    assert [item["score"] for item in found["items"]] == expected.scores.round(6).tolist()
    assert (found["recommendation_id"], found["model"]) == (None, snapshot.version)
    code, out, _ = recollect(home, "recommend", "5", "-n", "3", "--fields", "title,year,nothing", "--explain", "1")
    heading, columns, *rows = out.splitlines()
    assert code == 0
    assert heading.startswith(f"User 5, by {snapshot.version}, as of ")
    assert columns.split() == ["item", "title", "year", "nothing", "score", "source", "because"]
    assert len(rows) == 3
    assert re.match(rf"1  {found['items'][0]['item_id']} +The .*\(\d{{4}}\) +\d{{4}} +- +\S+ +personal +The ", rows[0])
    assert sorted(home.rglob("*")) == before


def test_a_list_with_everything_that_may_be_asked_for(trained: dict[str, Path], recollect: Recollect) -> None:
    """A filter, exclusions and a length; an unknown user gets the popular items, and is told so."""
    home = trained["ease"]
    first = answer(recollect(home, "recommend", "5", "--json"))["items"][0]["item_id"]
    options = ("--filter", "year >= 1990", "--exclude", first, "--fields", "year", "--json")
    found = answer(recollect(home, "recommend", "5", "-n", "40", *options))
    assert all(item["fields"]["year"] >= 1990 and item["item_id"] != first for item in found["items"])
    code, out, _ = recollect(home, "recommend", "5", "-n", "40", "--filter", "year >= 1990")
    assert code == 0
    assert "No other item matches the filter." in out
    popular = answer(recollect(home, "recommend", "--json"))
    assert {item["source"] for item in popular["items"]} == {"popular"}
    _, out, _ = recollect(home, "recommend", "stranger", "-n", "1")
    assert "knows nothing of user stranger: the popular items." in out
    assert out.splitlines()[2].split()[1] == popular["items"][0]["item_id"]
    assert recollect(home, "recommend")[1].startswith("The popular items, by ")


@pytest.mark.parametrize("after_snapshot", [False, True])
def test_a_list_answers_to_the_state_on_the_disk(
    trained: dict[str, Path], recollect: Recollect, tmp_path: Path, *, after_snapshot: bool
) -> None:
    """What was archived counts, also behind the state snapshot; hidden items are in no list, new titles are shown."""
    home = with_state(trained["ease"], tmp_path, after_snapshot=after_snapshot)
    found = answer(recollect(home, "recommend", "1", "-n", "40", "--json"))
    listed = {item["item_id"] for item in found["items"]}
    assert found["freshness"]["events_applied"] == (2 if after_snapshot else 1)
    assert not {"3", "7"} & listed
    assert ("9" in listed) <= (not after_snapshot)
    visitor = answer(recollect(home, "recommend", "visitor", "-n", "40", "--json"))
    assert {item["source"] for item in visitor["items"][:5]} == {"personal"}
    titles = {item["item_id"]: item["fields"]["title"] for item in visitor["items"]}
    assert titles["fresh"] == "Brand new"
    assert "with 1 event since" in recollect(home, "recommend", "visitor")[1]
    code, out, _ = recollect(home, "predict", "visitor", "7")
    assert code == 0
    assert "has seen it" in out


def test_similar_items(trained: dict[str, Path], recollect: Recollect) -> None:
    """With the title of the item that they are near to."""
    home = trained["svd"]
    snapshot = model_in(home)
    assert snapshot.item_records is not None
    title = snapshot.item_records.record(snapshot.items.row_of["7"]).title
    code, out, _ = recollect(home, "similar", "7", "-n", "4")
    assert code == 0
    assert out.startswith(f"Nearest to {title} (7), by {snapshot.version}.\n")
    assert len(out.splitlines()) == 6
    found = answer(recollect(home, "similar", "7", "-n", "4", "--json"))
    assert {item["source"] for item in found["items"]} == {"similar"}
    assert "7" not in {item["item_id"] for item in found["items"]}


def test_a_predicted_rating(trained: dict[str, Path], recollect: Recollect) -> None:
    """The score, clipped to the scale, and the place among all items."""
    home = trained["svd"]
    snapshot = model_in(home)
    user, rows = snapshot.users.row_of["5"], np.arange(len(snapshot.items))
    scores = scoring.exact_scores(snapshot, user, rows)
    best = int(scores.argmax())
    item_id = snapshot.items.id_of[best]
    found = answer(recollect(home, "predict", "5", item_id, "--json"))
    assert found["rating"] == pytest.approx(min(float(scores[best]), 5.0), abs=1e-6)
    assert (found["score"], found["place"], found["n_items"]) == (round(float(scores[best]), 6), 1, 40)
    assert found["has_seen"] == bool(best in snapshot.seen_rows(user))
    code, out, _ = recollect(home, "predict", "5", item_id)
    assert code == 0
    assert f"({item_id}), by {snapshot.version}: rating {found['rating']:.2f} on the scale from 0.5 to 5." in out
    assert "Place 1 of 40 items for this user." in out


def test_a_model_that_ranks_predicts_no_rating(trained: dict[str, Path], recollect: Recollect) -> None:
    """Its score has no unit."""
    assert answer(recollect(trained["ease"], "predict", "5", "7", "--json"))["rating"] is None
    assert "which is no rating" in recollect(trained["ease"], "predict", "5", "7")[1]


@pytest.mark.parametrize(
    ("argv", "status", "sentence"),
    [
        (("similar", "400"), 2, "has no item '400' (did you mean 40?)."),
        (("predict", "5", "nothing-like-it"), 2, "has no item 'nothing-like-it'."),
        (("predict", "stranger", "7"), 1, "knows nothing of user 'stranger'."),
        (("recommend", "5", "--filter", "year = 3"), 2, "filter: has '=' where '==' is needed (column 6)."),
        (("recommend", "5", "--fields", "title,1st"), 2, "--fields: '1st' must be a letter or _"),
    ],
)
def test_what_cannot_be_answered(
    trained: dict[str, Path], recollect: Recollect, argv: tuple[str, ...], status: int, sentence: str
) -> None:
    """One sentence says why."""
    code, out, err = recollect(trained["ease"], *argv)
    assert (code, out) == (status, "")
    assert sentence in err


def test_without_a_model(recollect: Recollect, tmp_path: Path) -> None:
    """It says how to make one, and makes no directory."""
    code, _, err = recollect(tmp_path / "none", "recommend", "5")
    assert code == 1
    assert "recollect train --data PATH" in err
    assert not (tmp_path / "none").exists()


def test_a_damaged_state_is_named(trained: dict[str, Path], recollect: Recollect, tmp_path: Path) -> None:
    """A list that silently lacks what users did would be wrong."""
    home = with_state(trained["ease"], tmp_path)
    (home / "state" / "snapshot.json").write_text("{")
    code, _, err = recollect(home, "recommend", "5")
    assert code == 1
    assert "The live state cannot be read: " in err
