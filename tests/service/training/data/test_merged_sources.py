"""Files beside an archive: what a retraining learns from."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.config import Config
from service.errors import DataError, NothingArchived
from service.models.files import artefact
from service.models.history.rating_scale import RatingScale
from service.models.history.user_history import EVENT_TYPES
from service.training import pipeline
from service.training.data import data_request, datasets
from service.training.data.merged_sources import SourceData, merge
from service.training.data.row_collector import SourceRows
from service.training.interactions import Interactions, ItemCatalogue, ReadReport
from service.training.promotion.incumbent import active, on_scale
from telemetry.events import Event
from telemetry.pseudonym import Pseudonymiser
from tests.support.archives.archive_commits import addition, commit
from tests.support.interactions import times, triples
from tests.support.sample_events import feedback, served

NO_KEY = Pseudonymiser()


def archive(root: Path, events: Sequence[Event]) -> str:
    """Commit events, and return the specification of their archive."""
    named = (replace(event, event_id=f"event-{seq:06d}") for seq, event in enumerate(events, 1))
    commit(root, addition(list(enumerate(named, 1))))
    return f"archive:{root}"


def event(user: str, item: str, type_: str, second: int = 3, **changes: Any) -> Event:
    at = f"2026-11-21T01:02:{second:02d}.000Z"
    return feedback(user_id=user, item_id=item, type=type_, **{"received_at": at, **changes})


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def read(*sources: str, pseudonyms: Pseudonymiser = NO_KEY) -> Interactions:
    return datasets.read(data_request.parse(sources), pseudonyms=pseudonyms)


def types(data: Interactions) -> list[str]:
    assert data.types is not None
    return [EVENT_TYPES[type_] for type_ in data.types.tolist()]


FILE = "user,item,rating,time\nann,i1,2,1600000000\nann,i2,4,1600000001\nbob,i3,5,1600000002\n"


def test_the_catalogue_stays_and_the_later_rating_counts(tmp_path: Path) -> None:
    """Items that nobody touched since are still there; users and items of the archive alone come behind."""
    spec = archive(
        tmp_path / "archive",
        [served(), event("ann", "i1", "rating", value=5.0), event("eve", "i9", "click"), event("ann", "i3", "view")],
    )
    data = read(write(tmp_path / "t.csv", FILE), spec)
    assert sorted(triples(data)) == [
        ("ann", "i1", 5.0),
        ("ann", "i2", 4.0),
        ("ann", "i3", 3.0),
        ("bob", "i3", 5.0),
        ("eve", "i9", 4.0),
    ]
    assert [*data.items.id_of] == ["i1", "i2", "i3", "i9"]
    by_pair = dict(zip(zip(*list(zip(*triples(data), strict=True))[:2], strict=True), types(data), strict=True))
    assert by_pair["ann", "i1"] == "rating"
    assert by_pair["eve", "i9"] == "click"
    assert data.report.n_duplicates == 1
    assert data.rated_share == 0.6


@pytest.mark.parametrize(("type_", "value"), [("view", 2.0), ("click", 2.0), ("purchase", 2.0), ("dismiss", 2.0)])
def test_a_rating_is_not_forgotten_for_a_later_event(tmp_path: Path, type_: str, value: float) -> None:
    """As within one archive; in whatever order the sources are given."""
    spec = archive(tmp_path / "archive", [event("ann", "i1", type_)])
    path = write(tmp_path / "t.csv", FILE)
    for sources in ((path, spec), (spec, path)):
        assert ("ann", "i1", value) in triples(read(*sources))


def test_rows_without_ratings_count_as_purchases(tmp_path: Path) -> None:
    """Beside ratings of the archive; a later dismissal outranks them, a view does not."""
    spec = archive(
        tmp_path / "archive",
        [event("ann", "i1", "dismiss"), event("ann", "i2", "view"), event("bob", "i2", "rating", value=1.0)],
    )
    data = read(write(tmp_path / "t.csv", "user,item\nann,i1\nann,i2\nbob,i3\n"), spec)
    assert sorted(triples(data)) == [("ann", "i1", 1.0), ("ann", "i2", 5.0), ("bob", "i2", 1.0), ("bob", "i3", 5.0)]
    assert sorted(types(data)) == ["dismiss", "purchase", "purchase", "rating"]
    assert any(note.endswith("t.csv has no ratings: its rows count as purchases.") for note in data.report.notes)


def test_rows_without_times_are_older_than_all_others(tmp_path: Path) -> None:
    """In the order of their file, so that the hold-out of a user is what is younger."""
    spec = archive(tmp_path / "archive", [event("ann", "i9", "click", 5), event("bob", "i9", "click", 1)])
    data = read(write(tmp_path / "t.csv", "user,item,rating\nann,i1,3\nann,i2,4\n"), spec)
    by_item = dict(zip([item for _, item, _ in triples(data)], times(data), strict=True))
    assert by_item["i1"] == by_item["i2"] < min(times(data)[2:])
    assert [item for user, item, _ in triples(data) if user == "ann"] == ["i1", "i2", "i9"]
    said = "t.csv has no times: its rows count as older than all others."
    assert any(note.endswith(said) for note in data.report.notes)


def test_files_must_still_agree(tmp_path: Path) -> None:
    """With an archive beside them, too."""
    first = write(tmp_path / "a.csv", FILE)
    second = write(tmp_path / "b.csv", "user,item,rating\nann,p-1,3\n")
    spec = archive(tmp_path / "archive", [event("ann", "i9", "click")])
    with pytest.raises(DataError, match=r"a\.csv has times and .*b\.csv has none: files of one set must agree"):
        read(first, spec, second)


def test_a_user_of_both_is_one_user(tmp_path: Path) -> None:
    """Telemetry has pseudonyms where there is a key; the model then has them for all users."""
    pseudonyms = Pseudonymiser(b"k" * 32)
    ann = pseudonyms.pseudonym("ann")
    spec = archive(tmp_path / "archive", [event(ann, "i9", "rating", value=1.0)])
    data = read(write(tmp_path / "t.csv", FILE), spec, pseudonyms=pseudonyms)
    assert [item for user, item, _ in triples(data) if user == ann] == ["i1", "i2", "i9"]
    assert set(data.users.id_of) == {ann, pseudonyms.pseudonym("bob")}
    alone = datasets.read(write(tmp_path / "t.csv", FILE), pseudonyms=pseudonyms)
    assert set(alone.users.id_of) == {"ann", "bob"}


def test_attributes_of_users_come_from_all_sources(tmp_path: Path) -> None:
    """Of a user of several files the later one counts; beside an archive with pseudonyms ids are replaced."""
    pseudonyms = Pseudonymiser(b"k" * 32)
    for name, users in (("a", "user_id,age\nann,30\nbob,40\n"), ("b", "user_id,town\nann,Rome\n")):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "t.csv", FILE)
        write(tmp_path / name / "users.csv", users)
    files = (str(tmp_path / "a"), str(tmp_path / "b"))
    assert read(*files).user_catalogue.attributes == {"ann": {"town": "Rome"}, "bob": {"age": 40}}
    spec = archive(tmp_path / "archive", [event("ann", "i9", "rating", value=1.0)])
    data = read(files[0], spec, pseudonyms=pseudonyms)
    assert data.user_catalogue.of([pseudonyms.pseudonym(id_) for id_ in ("ann", "eve")]) == [{"age": 30}, {}]


@pytest.mark.parametrize("made", [False, True])
def test_an_empty_archive_counts_for_nothing_beside_other_data(tmp_path: Path, *, made: bool) -> None:
    """So that the retraining of a new installation works; it is said, and changes with the first event."""
    path, root = write(tmp_path / "t.csv", FILE), tmp_path / "archive"
    if made:
        archive(root, [served()])
    data = read(path, f"archive:{root}")
    assert triples(data) == triples(datasets.read(path))
    assert any("nothing in it yet" in note or "to learn from yet" in note for note in data.report.notes)
    request = data_request.parse([path, f"archive:{root}"])
    assert data.fingerprint == datasets.fingerprint(request)
    with pytest.raises(NothingArchived):
        datasets.read(f"archive:{root}")
    with pytest.raises(NothingArchived):
        read(f"archive:{root}", f"archive:{tmp_path / 'other'}")


def test_the_scale_is_that_of_the_file(tmp_path: Path) -> None:
    """Events can hold any number; the demo data says nothing about the scale of others."""
    events = [event(f"u{n}", "i1", "rating", value=float(1 + n % 10)) for n in range(30)]
    spec = archive(tmp_path / "archive", [*events, event("ann", "i7", "rating", value=99.0)])
    path = write(tmp_path / "t.csv", FILE)
    config = Config(home=tmp_path / "home")

    def scaled(*sources: str) -> tuple[RatingScale, str, float]:
        request = data_request.parse(sources)
        data, settled = on_scale(config, request, datasets.read(request))
        return settled.scale, settled.origin, float(data.ratings.max())

    assert scaled(path, spec) == (RatingScale(2, 5), "data", 5.0)
    equal = write(tmp_path / "equal.csv", "user,item,rating,time\nann,i1,1,1600000000\n")
    assert scaled(equal, spec)[:2] == (RatingScale(1, 10), "bulk")
    assert scaled("demo:10x10x50", spec)[:2] == (RatingScale(1, 10), "bulk")
    assert scaled(spec)[:2] == (RatingScale(1, 10), "bulk")


def test_retraining_keeps_the_items(tmp_path: Path) -> None:
    """`train --data A`, then `train --data A --data archive`: the manifest names both, without a path."""
    config = Config(home=tmp_path / "home")
    rows = [
        f"u{user},i{item},{1 + (user + item) % 5},{1_600_000_000 + user}\n" for user in range(20) for item in range(8)
    ]
    path = write(tmp_path / "t.csv", "user,item,rating,time\n" + "".join(rows))
    first = pipeline.train(config, data=path)
    spec = archive(config.archive_dir, [event(f"u{n}", "new", "purchase", n) for n in range(20)])
    again = pipeline.train(config, data=data_request.parse([path, spec]))
    assert (first["n_items"], again["n_items"]) == (8, 9)
    assert again["data"]["source"] == "t.csv + archive"
    assert again["data"]["n_ratings"] == 180
    snapshot = artefact.load(config.models_dir / again["version"])
    assert "new" in snapshot.items.row_of
    assert active(config.models_dir) is not None
    demo = pipeline.train(config, data=data_request.parse(["demo:20x20x100", spec]), activate=True)
    assert demo["data"]["source"] == "demo:20x20x100 + archive"
    # It holds what users did, so that it is compared with like any other.
    assert active(config.models_dir) is not None


@given(st.data())
def test_every_pair_keeps_its_strongest_latest_row(data: st.DataObject) -> None:
    """By kind, then source, then time, then position: against a plain loop over the rows."""
    parts, rows = [], []
    for place in range(data.draw(st.integers(1, 3))):
        n = data.draw(st.integers(1, 6))
        part = [
            (
                data.draw(st.integers(0, 2)),
                data.draw(st.integers(0, 2)),
                data.draw(st.integers(0, 3)),
                data.draw(st.integers(0, len(EVENT_TYPES) - 1)),
            )
            for _ in range(n)
        ]
        parts.append(_source(part))
        rows += [(user, item, time, type_, place) for user, item, time, type_ in part]
    best: dict[tuple[int, int], tuple[int, int, int, int, int]] = {}
    for position, (user, item, time, type_, place) in enumerate(rows):
        key = (_KINDS[EVENT_TYPES[type_]], place, time, position, type_)
        best[user, item] = max(best.get((user, item), key), key)
    merged = datasets.interactions_of(merge(parts, "all", "sha256:0", NO_KEY))
    assert merged.types is not None
    found = {
        (user, item): (time, type_)
        for (user, item, _), time, type_ in zip(triples(merged), times(merged), merged.types.tolist(), strict=True)
    }
    assert found == {(f"u{user}", f"i{item}"): (key[2], key[4]) for (user, item), key in best.items()}


_KINDS = {"rating": 2, "purchase": 1, "dismiss": 1, "click": 0, "view": 0}


def _source(part: list[tuple[int, int, int, int]]) -> SourceData:
    users, items, moments, kinds = (list(column) for column in zip(*part, strict=True))
    rows = SourceRows(
        user_codes=np.array(users, np.int32),
        item_codes=np.array(items, np.int32),
        ratings=np.array([1.0 + kind for kind in kinds], np.float32),
        timestamps=np.array(moments, np.int64),
        user_ids=["u0", "u1", "u2"],
        item_ids=["i0", "i1", "i2"],
        n_rows=len(part),
        n_bad_rows=0,
        bad_examples=[],
        ranks=np.array([_KINDS[EVENT_TYPES[kind]] for kind in kinds], np.int8),
        types=np.array(kinds, np.uint8),
    )
    return SourceData("archive", rows, "sha256:0", ReadReport(source="archive"), ItemCatalogue(), is_archive=True)
