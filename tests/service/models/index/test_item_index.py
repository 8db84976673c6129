"""The index of a catalogue's items: what it finds, what it must never find, and what happens without it."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.catalogue.extended_snapshot import NewRows, extended
from service.errors import ModelRefused
from service.models.files import artefact
from service.models.files.erased_users import without_users
from service.models.files.index_file import FILE
from service.models.fold_in.representation import UserRepresentation
from service.models.index import library
from service.models.publication import publication
from service.models.publication.index_building import IndexRules, build
from service.models.ranking import scoring
from service.models.ranking.indexed_best import indexed_best
from service.models.ranking.scoring import Ranking, TopNRequest
from service.models.snapshot import ModelSnapshot
from tests.support.models.clustered_model import N_USERS, clustered_model

pytest.importorskip("faiss", reason="The extra `ann` is not installed.")

RULES = IndexRules(least_items=1_000)


@cache
def indexed() -> ModelSnapshot:
    model = clustered_model()
    built = build(model, RULES)
    assert built.index is not None, built.description
    return replace(model, item_index=built.index)


def published(models_dir: Path, model: ModelSnapshot, rules: IndexRules = RULES) -> ModelSnapshot:
    version = publication.publish(models_dir, model, data={}, measures={}, index_rules=rules)
    return artefact.load(models_dir / version)


def exact(model: ModelSnapshot) -> ModelSnapshot:
    return replace(model, item_index=None)


def ranked(model: ModelSnapshot, *requests: TopNRequest) -> list[Ranking]:
    return scoring.personal(model, requests)


def best_of(
    model: ModelSnapshot, user_row: int, count: int, mask: Any = None, barred: Any = scoring.NO_ROWS
) -> tuple[Any, Any] | None:
    """Ask for the best items by the index as `scoring` does."""
    user = model.trained_user(user_row)
    assert model.item_index is not None
    return indexed_best(
        model,
        model.item_index,
        user.factors,
        model.max_exact_over_approx_of(user),
        lambda rows: scoring.exact_scores(model, user_row, rows),
        barred,
        count,
        mask,
    )


def test_lists_are_those_of_the_exact_path_but_for_what_the_index_misses() -> None:
    """Scores are the exact ones to the last bit, the order holds, and the recall is what the manifest will say."""
    model = indexed()
    description = build(exact(model), RULES).description
    shared = 0
    for user_row in range(N_USERS - 1):
        (found,), (expected,) = (
            ranked(one, TopNRequest(user_row, 10, exclude=np.array([user_row]))) for one in (model, exact(model))
        )
        assert found.scores.tolist() == scoring.exact_scores(model, user_row, found.rows).tolist()
        assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
        assert not set(found.rows.tolist()) & {user_row, *model.seen_rows(user_row).tolist()}
        shared += len(set(found.rows.tolist()) & set(expected.rows.tolist()))
    recall = shared / (10 * (N_USERS - 1))
    assert description["recall@10"] == pytest.approx(recall, abs=0.01)
    assert recall >= RULES.recall_floor
    assert 1 <= description["nprobe"] < description["nlist"]


def test_a_list_is_the_beginning_of_a_longer_one_and_the_same_in_a_batch() -> None:
    """So pages agree, and a request does not depend on the others of its turn."""
    model = indexed()
    for user_row in range(0, N_USERS, 7):
        (longest,) = ranked(model, TopNRequest(user_row, 200))
        for n, offset in ((1, 0), (10, 0), (10, 35), (150, 50)):
            request = TopNRequest(user_row, n, offset)
            (alone,) = ranked(model, request)
            together = ranked(model, *(TopNRequest(row, 5) for row in range(8)), request)[-1]
            assert alone.rows.tolist() == longest.rows[offset : offset + n].tolist() == together.rows.tolist()


def test_whoever_needs_more_than_the_index_has_gets_an_exact_list() -> None:
    """A user without factors, whose order is that of biases; and places far behind."""
    model = indexed()
    for request in (TopNRequest(N_USERS - 1, 10), TopNRequest(3, 500, 3_400), TopNRequest(3, 4_000)):
        (found,), (expected,) = ranked(model, request), ranked(exact(model), request)
        assert found.rows.tolist() == expected.rows.tolist()
        assert found.scores.tolist() == expected.scores.tolist()


def test_items_behind_the_index_are_searched_exactly() -> None:
    """A new item that fits a user best is on top of the list, unless it is barred."""
    model = indexed()
    user_row = 5
    fits = model.user_factors[user_row] / np.linalg.norm(model.user_factors[user_row])
    longest = np.linalg.norm(model.item_factors, axis=1).max()
    factors = np.stack([fits * longest, -fits * longest]).astype(np.float32)
    with_new = extended(model, NewRows(["new", "worst"], factors, np.zeros(2, np.float32), np.zeros(2, np.float32)))
    n = len(model.items)
    (found,) = ranked(with_new, TopNRequest(user_row, 10))
    assert found.rows[0] == n
    assert n + 1 not in found.rows
    (without,) = ranked(with_new, TopNRequest(user_row, 10, exclude=np.array([n])))
    assert without.rows.tolist() == ranked(model, TopNRequest(user_row, 10))[0].rows.tolist()


@pytest.mark.parametrize("share", [0.6, 0.1])
def test_a_filter_holds_exactly_and_costs_no_recall(share: float) -> None:
    """Every item matches, and the recall among those that match is no lower than among all."""
    model = indexed()
    mask = np.random.default_rng(1).random(len(model.items)) < share
    shared = 0
    for user_row in range(N_USERS - 1):
        barred = np.flatnonzero(mask)[:3]
        found = best_of(model, user_row, 10, mask, barred)
        assert found is not None
        rows = set(found[0].tolist())
        assert len(rows) == 10
        assert mask[found[0]].all()
        assert not rows & set(barred.tolist())
        include = np.setdiff1d(np.flatnonzero(mask), barred)
        everything = UserRepresentation(model.user_factors[user_row], 0.0, np.empty(0, dtype=np.int32))
        expected = scoring.personal_among(exact(model), TopNRequest(user_row, 10, user=everything), include)
        shared += len(rows & set(expected.rows.tolist()))
    assert shared / (10 * (N_USERS - 1)) >= RULES.recall_floor


def test_a_narrow_filter_is_left_to_the_exact_path() -> None:
    """The items that match are few, and the cells may hold none of them."""
    mask = np.zeros(len(indexed().items), dtype=bool)
    mask[:200] = True
    assert best_of(indexed(), 0, 10, mask) is None


def test_a_published_index_is_mapped_and_survives_an_erasure(tmp_path: Path) -> None:
    """The copy of a version without a user has the index of the version, as its items are the same."""
    model = published(tmp_path, clustered_model())
    described = model.manifest["index"]
    assert (described["kind"], described["items"], described["floor"]) == ("ivf_flat", 4_000, 0.95)
    assert described["bytes"] == (tmp_path / model.version / FILE).stat().st_size
    assert model.item_index is not None
    copy = publication.supersede(tmp_path, model.version, lambda one: without_users(one, [0]), "erased")
    loaded = artefact.load(tmp_path / copy)
    assert loaded.manifest["index"] == described
    (found,), (expected,) = ranked(loaded, TopNRequest(4, 10)), ranked(indexed(), TopNRequest(5, 10))
    assert found.rows.tolist() == expected.rows.tolist()


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        (IndexRules(least_items=4_001), None),
        (IndexRules(least_items=1_000, recall_floor=1.0), "The index finds 0."),
    ],
)
def test_without_an_index_that_is_good_enough_lists_are_exact(
    tmp_path: Path, rules: IndexRules, why: str | None
) -> None:
    """A small catalogue needs none; one that loses more than the floor allows is refused, and the manifest says so."""
    model = published(tmp_path, clustered_model(k=64, spread=2.0), rules)
    described = model.manifest["index"]
    assert described["kind"] == "exact"
    assert described.get("why", "").startswith(why or "")
    assert ("why" in described) == (why is not None)
    assert model.item_index is None
    assert not (tmp_path / model.version / FILE).exists()


def _damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("harm", [_damage, _shorten, Path.unlink])
def test_a_damaged_index_is_refused(tmp_path: Path, harm: Any) -> None:
    """A bit that differs, a length that differs, or no file."""
    model = published(tmp_path, clustered_model())
    harm(tmp_path / model.version / FILE)
    with pytest.raises(ModelRefused, match=FILE):
        artefact.load(tmp_path / model.version)


@pytest.fixture
def without_the_library(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "faiss", None)
    library.faiss.cache_clear()
    yield
    library.faiss.cache_clear()


@pytest.fixture
def with_an_index(tmp_path: Path) -> str:
    return published(tmp_path, clustered_model()).version


def test_without_the_library_lists_are_exact(with_an_index: str, without_the_library: None, tmp_path: Path) -> None:
    """A replica serves a model that has an index, a new model gets none, and a copy does not claim one."""
    model = artefact.load(tmp_path / with_an_index)
    assert model.item_index is None
    (found,), (expected,) = (ranked(one, TopNRequest(3, 10)) for one in (model, exact(indexed())))
    assert found.rows.tolist() == expected.rows.tolist()
    new = published(tmp_path, clustered_model(seed=1))
    copied = publication.supersede(tmp_path, with_an_index, lambda one: without_users(one, [0]), "erased")
    for one in (new, artefact.load(tmp_path / copied)):
        assert one.manifest["index"] == {"kind": "exact", "why": library.MISSING}


def test_a_model_of_an_older_release_has_no_index(tmp_path: Path) -> None:
    """Its manifest does not name one."""
    version = publication.publish(tmp_path, clustered_model(), data={}, measures={}, index_rules=IndexRules(10_000))
    manifest = tmp_path / version / artefact.MANIFEST
    manifest.write_text(manifest.read_text().replace('"index": {', '"older": {'))
    assert artefact.load(tmp_path / version).item_index is None
