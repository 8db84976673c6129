import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.config import Config, from_env
from service.errors import DataError
from service.models.files import active_model, artefact
from service.models.history.event_values import EVENT_VALUES, EventValues
from service.models.history.rating_scale import RatingScale
from service.models.history.user_history import EVENT_TYPES
from service.training import pipeline
from service.training.algorithms import registry
from service.training.data import datasets
from service.training.data.data_request import as_request
from service.training.data.formats import archived_events
from service.training.data.scale_detection import SettledScale, settle
from service.training.interactions import Interactions, no_progress
from service.training.training_need import needed_training
from telemetry.archive.compaction import compact
from telemetry.catalogue.catalogue import Catalogue
from telemetry.catalogue.commit import ErasureRequest
from telemetry.erasure.erasure_requests import replace_file
from telemetry.erasure.line_matcher import LineMatcher
from telemetry.erasure.rewriting import rewrite
from telemetry.events import Event
from tests.support.archives.archive_commits import addition, commit, seal
from tests.support.interactions import triples
from tests.support.models.source_rows import row_triples
from tests.support.sample_events import feedback, served

AT = "2026-11-21T01:02:03.456Z"
AT_S = 1795222923


def at(second: int) -> str:
    return f"2026-11-21T01:02:{second:02d}.456Z"


def event(user: str, item: str, type_: str, second: int = 3, **changes: Any) -> Event:
    return feedback(user_id=user, item_id=item, type=type_, **{"received_at": at(second), **changes})


def archive(root: Path, events: Sequence[Event], first_seq: int = 1) -> str:
    """Commit events, and return the specification of their archive."""
    named = (replace(event, event_id=f"event-{seq:06d}") for seq, event in enumerate(events, first_seq))
    commit(root, addition(list(enumerate(named, first_seq))))
    return f"archive:{root}"


def erase(root: Path, user_id: str) -> None:
    catalogue = Catalogue(root)
    lease = catalogue.lease.acquire(catalogue.lease.read(), "eraser", "here", locked=False)
    assert lease is not None
    users = LineMatcher([ErasureRequest("e", user_id, "digest", "2026-12-01T00:00:00.000Z")])
    for path, length in catalogue.files(sealed=True).items():
        replacement = rewrite(root, lease.epoch, path, length, users)
        if replacement is not None:
            assert replace_file(catalogue.database, lease.epoch, replacement)
            (root / path).unlink()
    catalogue.close()


class TestValues:
    def test_the_rating_of_each_event_type(self, tmp_path: Path) -> None:
        """A rating counts as its value; served lists and impressions do not count."""
        spec = archive(
            tmp_path,
            [
                event("u", "rated", "rating", value=2.5),
                event("u", "bought", "purchase", value=19.99),
                event("u", "clicked", "click"),
                served(),
                event("v", "viewed", "view"),
                event("v", "dismissed", "dismiss"),
                event("w", "shown", "impression"),
            ],
        )
        data = datasets.read(spec)
        assert triples(data) == [
            ("u", "rated", 2.5),
            ("u", "bought", 5.0),
            ("u", "clicked", 4.0),
            ("v", "viewed", 3.0),
            ("v", "dismissed", 1.0),
        ]
        assert data.users.id_of == ["u", "v"]
        assert data.types is not None
        assert [EVENT_TYPES[index] for index in data.types] == ["rating", "purchase", "click", "view", "dismiss"]
        assert (data.rating_min, data.rating_max) == (1.0, 5.0)
        assert (data.report.source, data.report.files, data.report.n_rows) == ("archive", (), 5)
        assert data.report.notes == (
            "The archive holds 1 rating, 1 purchase, 1 click, 1 view, 1 dismissal.",
            "1 impression of the archive was left out: the type has no rating.",
        )

    @pytest.mark.parametrize(
        ("events", "left"),
        [
            ([("view", 1), ("rating", 2), ("rating", 3), ("purchase", 4), ("click", 5)], ("rating", 3)),
            ([("rating", 9), ("rating", 3)], ("rating", 9)),
            ([("click", 1), ("purchase", 2), ("view", 3), ("click", 4)], ("purchase", 2)),
            ([("purchase", 1), ("dismiss", 2), ("view", 3)], ("dismiss", 2)),
            ([("click", 7), ("view", 7)], ("view", 7)),
        ],
    )
    def test_of_a_pair_one_event_stays(
        self, tmp_path: Path, events: list[tuple[str, int]], left: tuple[str, int]
    ) -> None:
        """A rating before a purchase or a dismissal, these before a view, and then the latest."""
        made = [event("u", "i", t, s, value=float(s) if t == "rating" else None) for t, s in events]
        data = datasets.read(archive(tmp_path, made))
        assert data.ratings.tolist() == [EVENT_VALUES[left[0]] or float(left[1])]
        assert data.timestamps is not None
        assert data.timestamps.tolist() == [AT_S - 3 + left[1]]
        assert data.report.n_duplicates == len(events) - 1

    def test_the_clients_time_counts_if_it_is_plausible(self, tmp_path: Path) -> None:
        """It is ignored if it is after the receipt, or marked as skewed."""
        clocks: list[tuple[str | None, list[str]]] = [
            ("2026-11-21T02:01:53+01:00", []),
            ("2026-11-21T01:03:03Z", []),
            ("2020-01-01T00:00:00Z", ["clock_skew"]),
            (None, ["unknown_item"]),
        ]
        made = [event("u", f"i{n}", "view", client_time=time, marks=marks) for n, (time, marks) in enumerate(clocks)]
        data = datasets.read(archive(tmp_path, made))
        assert data.timestamps is not None
        assert data.timestamps.tolist() == [AT_S - 10, AT_S, AT_S, AT_S]

    def test_ids_are_those_of_the_archive(self, tmp_path: Path) -> None:
        """Blanks around an id are part of it, because the service distinguishes them."""
        data = datasets.read(archive(tmp_path, [event(" u", "i", "view"), event("u", "i ", "view")]))
        assert (data.users.id_of, data.items.id_of) == ([" u", "u"], ["i", "i "])


class TestReadEvents:
    def test_committed_lines_alone(self, tmp_path: Path) -> None:
        """Uncommitted lines of a consumer are not read."""
        spec = archive(tmp_path, [event("u", "i", "view")])
        (path,) = tmp_path.glob("date=*/*.jsonl")
        with path.open("ab") as file:
            file.write(path.read_bytes().replace(b'"u"', b'"w"'))
        assert datasets.read(spec).users.id_of == ["u"]

    def test_lines_that_are_no_events_are_bad_rows(self, tmp_path: Path) -> None:
        """They are located by file and line; the other lines count."""
        spec = archive(tmp_path, [event("u", f"i{n}", "rating", value=3.0) for n in range(4)])
        (path,) = tmp_path.glob("date=*/*.jsonl")
        content = path.read_bytes()
        path.write_bytes(
            content.replace(b'"item_id":"i1"', b'"item_id":1234', 1).replace(b'"value":3.0', b'"value":nul', 1)
        )
        report = datasets.read(spec).report
        name = path.relative_to(tmp_path)
        assert (report.n_rows, report.n_bad_rows) == (4, 2)
        assert report.bad_examples[0].startswith(f"{name}:1: The line is not JSON")
        assert report.bad_examples[1] == f"{name}:2: Field 'item_id' of the feedback event is of the wrong type."

    def test_a_compacted_date_reads_the_same(self, tmp_path: Path) -> None:
        """The fingerprint, which is of events and not of files, stays."""
        spec = archive(
            tmp_path, [served(), *(event("u", f"i{n}", "view") for n in range(50)), event("v", "i", "click")]
        )
        seal(tmp_path)
        before = datasets.read(spec)
        assert len(list(compact(tmp_path, "2026-12-01"))) == 1
        assert not list(tmp_path.glob("date=*/*.jsonl"))
        after = datasets.read(spec)
        assert triples(after) == triples(before)
        assert after.fingerprint == before.fingerprint == datasets.fingerprint(spec)

    def test_erased_users_are_gone(self, tmp_path: Path) -> None:
        """They are not read, and the fingerprint changes."""
        spec = archive(tmp_path, [event(user, "i", "view") for user in ("u", "v", "u")])
        seal(tmp_path)
        before = datasets.fingerprint(spec)
        erase(tmp_path, "u")
        assert datasets.read(spec).users.id_of == ["v"]
        assert datasets.fingerprint(spec) != before

    def test_every_event_changes_the_fingerprint(self, tmp_path: Path) -> None:
        """So `up --data archive` trains again only for new events."""
        spec = archive(tmp_path, [event("u", "i", "view")])
        first = datasets.fingerprint(spec)
        assert datasets.fingerprint(spec) == first == datasets.read(spec).fingerprint
        archive(tmp_path, [event("u", "j", "view")], first_seq=2)
        assert datasets.fingerprint(spec) != first

    def test_many_events_are_read_in_batches(self, tmp_path: Path) -> None:
        """The result is the same, and progress counts lines."""
        events = [event(f"u{n % 7}", f"i{n % 11}", "rating", n % 60, value=float(n % 5)) for n in range(300)]
        spec = archive(tmp_path, events)
        updates: list[tuple[int, int]] = []
        whole, fingerprint, _ = archived_events.read_archive(tmp_path, no_progress)
        pieces, _, _ = archived_events.read_archive(
            tmp_path, lambda _stage, done, total: updates.append((done, total)), batch_events=16, progress_lines=100
        )
        assert row_triples(pieces) == row_triples(whole)
        for name in ("timestamps", "ranks"):
            np.testing.assert_array_equal(getattr(pieces, name), getattr(whole, name))
        assert fingerprint == datasets.fingerprint(spec)
        assert updates == [(100, 300), (200, 300), (300, 300), (300, 300)]


class TestRefusals:
    def test_nothing_there(self, tmp_path: Path) -> None:
        """Reading and fingerprinting refuse alike."""
        for attempt in (datasets.read, datasets.fingerprint):
            with pytest.raises(DataError, match=r"There is no archive in .*, or nothing in it yet"):
                attempt(f"archive:{tmp_path}")
            for spec in ("archive", "archive:", "archive: "):
                with pytest.raises(DataError, match="names no archive: give archive:PATH"):
                    attempt(spec)

    def test_nothing_to_learn_from(self, tmp_path: Path) -> None:
        """Served lists and impressions are no interactions."""
        spec = archive(tmp_path, [served(), event("u", "i", "impression")])
        with pytest.raises(
            DataError, match="holds no rating, purchase, click, view or dismiss event to learn from yet"
        ):
            datasets.read(spec)

    def test_a_damaged_archive(self, tmp_path: Path) -> None:
        """A file that is shorter than its committed length, or missing, ends the run."""
        spec = archive(tmp_path, [event("u", "i", "view")])
        (path,) = tmp_path.glob("date=*/*.jsonl")
        path.write_bytes(path.read_bytes()[:-10])
        with pytest.raises(DataError, match="is damaged before its committed length"):
            datasets.read(spec)
        path.unlink()
        with pytest.raises(DataError, match="is in the archive's catalogue, but not on the disk"):
            datasets.read(spec)

    def test_a_path_of_that_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file called archive is read as ./archive."""
        monkeypatch.chdir(tmp_path)
        Path("archive").write_text("user,item\nu,i\n")
        assert triples(datasets.read("./archive")) == [("u", "i", 1.0)]


def test_the_installations_own_archive() -> None:
    """`archive` alone names it; other specifications stay."""
    assert archived_events.with_default_path("archive", Path("/home/archive")) == "archive:/home/archive"
    for spec in ("archive:elsewhere", "archives", "demo", "x.csv"):
        assert archived_events.with_default_path(spec, Path("/home/archive")) == spec


def test_training_on_an_archive(tmp_path: Path) -> None:
    """The manifest names the archive without a path, and the version is current until the next event."""
    config = Config(home=tmp_path)
    events = [event(f"u{n % 5}", f"i{n}", "rating", value=float(n % 5 + 1)) for n in range(20)]
    spec = archive(config.archive_dir, events)
    assert needed_training(config, spec) == as_request(spec)
    manifest = pipeline.train(config, data=spec, algorithm="popularity")
    assert manifest["data"]["source"] == "archive"
    assert manifest["data"]["n_ratings"] == 20
    assert needed_training(config, spec) is None
    archive(config.archive_dir, [event("u", "new", "view")], first_seq=21)
    assert needed_training(config, spec) == as_request(spec)


def test_two_outlying_ratings_are_clipped(tmp_path: Path) -> None:
    """The scale is that of an earlier model or of the other ratings."""
    outliers = [event("eve", "i1", "rating", value=99.0), event("eve", "i2", "rating", value=-40.0)]
    events = [event(f"u{n % 25}", f"i{n * 7 % 40}", "rating", value=float(n % 5 + 1)) for n in range(200)]
    read: list[Interactions] = []

    def trained(config: Config, spec: str) -> tuple[float, float, str]:
        manifest = pipeline.train(config, data=spec, algorithm="baseline", on_read=read.append)
        assert active_model.version(config.models_dir) == manifest["version"]
        return manifest["rating_min"], manifest["rating_max"], manifest["data"]["scale_from"]

    alone = Config(home=tmp_path / "alone")
    assert trained(alone, archive(alone.archive_dir, [*events, *outliers])) == (1.0, 5.0, "bulk")
    (note,) = read[-1].report.notes[1:]
    assert note.startswith(
        "2 ratings lie outside of the scale 1 to 5, that of nearly all of them, and counted as its nearest end, "
        "such as 99 by 'eve' of 'i1', -40 by 'eve' of 'i2'"
    )
    after = Config(home=tmp_path / "after")
    path = tmp_path / "ratings.csv"
    path.write_text("".join(f"u{n % 25},i{n * 3 % 40},{n % 10 / 2 + 0.5}\n" for n in range(400)))
    assert trained(after, str(path)) == (0.5, 5.0, "data")
    spec = archive(after.archive_dir, [*events[:5], *outliers, event("eve", "i3", "click")])
    assert trained(after, spec) == (0.5, 5.0, "model")
    assert trained(after, spec) == (0.5, 5.0, "model")


def test_a_model_of_the_demo_data_does_not_set_the_scale(tmp_path: Path) -> None:
    """Ratings from 1 to 10 are not clipped to the demo's stars, and not compared with a model of them."""
    config = Config(home=tmp_path)
    pipeline.train(config, data="demo:60x40x900", algorithm="baseline")
    events = [event(f"u{n % 25}", f"i{n * 7 % 40}", "rating", value=float(n % 10 + 1)) for n in range(200)]
    manifest = pipeline.train(config, data=archive(config.archive_dir, events), algorithm="baseline")
    assert (manifest["rating_min"], manifest["rating_max"], manifest["data"]["scale_from"]) == (1.0, 10.0, "bulk")
    assert active_model.version(config.models_dir) == manifest["version"]


def test_event_values_are_put_on_the_scale_of_the_ratings(tmp_path: Path) -> None:
    """A purchase is the largest rating of any scale; on a scale up to 5 the values stay."""
    kinds = ("purchase", "click", "view", "dismiss")
    events = [event("u", f"{kind}ed", kind) for kind in kinds]
    ratings = [event(f"u{n}", f"i{n}", "rating", value=float(n % 3)) for n in range(8)]
    data = datasets.read(archive(tmp_path, [*ratings, *events]))
    assert data.rated_share == pytest.approx(8 / 12)
    put, settled = settle(data, SettledScale(RatingScale(-10, 10), "model"), is_archive=True)
    assert settled == SettledScale(RatingScale(-10, 10), "model")
    assert put.ratings.tolist() == [*[float(n % 3) for n in range(8)], 10.0, 5.0, 0.0, -10.0]
    assert put.event_values == (10.0, 10.0, 5.0, 0.0, -10.0)
    same, _ = settle(data, SettledScale(RatingScale(0.5, 5), "model"), is_archive=True)
    assert same.ratings[8:].tolist() == [5.0, 4.0, 3.0, 1.0]
    wanted = EventValues(purchase=4.5, click=3.0, view=2.0, dismiss=1.5)
    own, _ = settle(data, SettledScale(RatingScale(-10, 10), "model"), is_archive=True, values=wanted)
    assert own.ratings[8:].tolist() == [7.5, 0.0, -5.0, -7.5]
    file, settled = settle(data, SettledScale(RatingScale(0.5, 5), "model"), is_archive=False)
    assert settled == SettledScale(RatingScale(0, 2), "data")
    assert (file.rating_min, file.rating_max) == (0.0, 2.0)


def test_the_values_of_events_are_settings_and_are_published(tmp_path: Path) -> None:
    """A model keeps the values that it was trained with, for live events."""
    config = from_env({"RECOLLECT_HOME": str(tmp_path), "RECOLLECT_VALUE_CLICK": "2.5"})
    events = [event(f"u{n % 9}", f"i{n % 7}", ("click", "purchase")[n % 2]) for n in range(40)]
    manifest = pipeline.train(config, data=archive(config.archive_dir, events), algorithm="popularity")
    assert manifest["event_values"] == {"rating": 5.0, "purchase": 5.0, "click": 2.5, "view": 3.0, "dismiss": 1.0}
    snapshot = artefact.load(config.models_dir / manifest["version"])
    assert snapshot.event_values == (5.0, 5.0, 2.5, 3.0, 1.0)
    assert set(snapshot.history.data.tolist()) == {5.0, 2.5}


def test_few_ratings_do_not_make_a_scale(tmp_path: Path) -> None:
    """Event values may exceed them, and later ratings may too."""
    config = Config(home=tmp_path)
    events = [event(f"u{n}", f"i{n % 3}", ("purchase", "dismiss")[n % 2]) for n in range(8)]
    spec = archive(config.archive_dir, [event("u", "i", "rating", value=4.0), *events])
    put, settled = settle(datasets.read(spec), None, is_archive=True)
    assert settled == SettledScale(RatingScale(1, 5), "bulk")
    assert put.ratings.tolist() == [4.0, *[5.0, 1.0] * 4]
    manifest = pipeline.train(config, data=spec, algorithm="baseline")
    assert manifest["data"]["scale_from"] == "bulk"
    archive(config.archive_dir, [event(f"v{n}", "i", "rating", value=float(n)) for n in range(11)], first_seq=20)
    after = pipeline.train(config, data=spec, algorithm="baseline")
    assert (after["rating_min"], after["rating_max"]) == (0.0, 10.0)


def test_an_archive_without_ratings_is_refused_for_a_rating_model(tmp_path: Path) -> None:
    """The value of a click is no rating."""
    config = Config(home=tmp_path)
    spec = archive(config.archive_dir, [event(f"u{n % 5}", f"i{n}", "click") for n in range(20)])
    with pytest.raises(DataError, match="archive has no ratings, and svd predicts ratings"):
        pipeline.train(config, data=spec, algorithm="svd")
    assert registry.get(pipeline.train(config, data=spec)["algorithm"]).kind == "ranking"


def test_the_command_reads_the_archive_of_its_home(tmp_path: Path) -> None:
    """`--data archive` is the archive under RECOLLECT_HOME, which the refusal names."""
    result = subprocess.run(
        [sys.executable, "-m", "ops", "train", "--data", "archive"],
        env=os.environ | {"RECOLLECT_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert result.stderr.strip() == f"recollect: There is no archive in {tmp_path}/archive, or nothing in it yet."
