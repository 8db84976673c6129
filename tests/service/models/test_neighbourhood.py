"""Neighbour scores agree with the definition, one neighbour at a time."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import csr_array

from service.errors import ModelRefused
from service.models.files import artefact, erased_users
from service.models.neighbourhood import Combine, Neighbourhood, Over, Signal
from service.models.publication import publication
from service.models.ranking import scoring
from service.models.snapshot import ModelSnapshot
from service.models.vocabulary import Vocabulary
from tests.support.models.similar_list import similar_list

N_USERS, N_ITEMS = 12, 9


def sparse(values: NDArray[np.float32], stored: NDArray[np.bool_]) -> csr_array:
    """A CSR of what is stored, zeros among it too."""
    rows, columns = np.nonzero(stored)
    indptr = np.concatenate([[0], np.cumsum(stored.sum(axis=1))]).astype(np.int64)
    return csr_array((values[rows, columns], columns.astype(np.int32), indptr), shape=values.shape)


def made(over: Over, combine: Combine, signal: Signal, seed: int) -> ModelSnapshot:
    rng = np.random.default_rng(seed)
    side = N_ITEMS if over == "items" else N_USERS
    weights = rng.normal(size=(side, side)).astype(np.float32)
    weights[rng.random(weights.shape) < 0.1] = 0
    ratings = rng.integers(1, 6, (N_USERS, N_ITEMS)).astype(np.float32)
    history = sparse(ratings, rng.random(ratings.shape) < 0.5)
    return ModelSnapshot(
        algorithm="made_up",
        settings={},
        users=Vocabulary(f"u{row}" for row in range(N_USERS)),
        items=Vocabulary(f"i{row}" for row in range(N_ITEMS)),
        user_factors=np.zeros((N_USERS, 0), np.float32),
        item_factors=np.zeros((N_ITEMS, 0), np.float32),
        user_bias=rng.normal(size=N_USERS).astype(np.float32),
        item_bias=rng.normal(size=N_ITEMS).astype(np.float32),
        global_mean=3.25,
        rating_min=1.0,
        rating_max=5.0,
        history=history,
        popularity=np.ones(N_ITEMS, np.float32),
        data_as_of="2026-01-01T00:00:00.000Z",
        neighbourhood=Neighbourhood(over, combine, signal, sparse(weights, rng.random(weights.shape) < 0.4)),
    )


def stored(matrix: csr_array, row: int) -> dict[int, float]:
    part = slice(matrix.indptr[row], matrix.indptr[row + 1])
    return dict(zip(matrix.indices[part].tolist(), matrix.data[part].tolist(), strict=True))


def by_definition(snapshot: ModelSnapshot, user: int, item: int) -> float:
    """Return the score of a pair, summed neighbour by neighbour."""
    lists = snapshot.neighbourhood
    assert lists is not None
    mean, b_user, b_item = snapshot.global_mean, snapshot.user_bias.tolist(), snapshot.item_bias.tolist()
    terms: list[tuple[float, float]] = []
    if lists.over == "items":
        for seen, rating in stored(snapshot.history, user).items():
            if item in (weights := stored(lists.weights, seen)):
                terms.append((weights[item], rating - (mean + b_user[user] + b_item[seen])))
    else:
        for neighbour, weight in stored(lists.weights, user).items():
            if item in (ratings := stored(snapshot.history, neighbour)):
                terms.append((weight, ratings[item] - (mean + b_user[neighbour] + b_item[item])))
    term: float = sum(weight * (1.0 if lists.signal == "seen" else residual) for weight, residual in terms)
    if lists.combine != "sum":
        divisor = sum(abs(weight) for weight, _ in terms) if lists.combine == "weighted_mean" else len(terms)
        term = term / divisor if divisor else 0.0
    return float(mean + b_user[user] + b_item[item] + term)


@settings(deadline=None, max_examples=80)
@given(
    over=st.sampled_from(["items", "users"]),
    combine=st.sampled_from(["sum", "weighted_mean", "mean"]),
    signal=st.sampled_from(["seen", "residual"]),
    seed=st.integers(0, 1000),
)
def test_scores_agree_with_the_definition(over: Over, combine: Combine, signal: Signal, seed: int) -> None:
    """Over items and users, for all combinations, with zero weights and without neighbours."""
    snapshot = made(over, combine, signal, seed)
    rows = np.arange(N_ITEMS)
    for user in range(N_USERS):
        expected = [by_definition(snapshot, user, item) for item in range(N_ITEMS)]
        np.testing.assert_allclose(scoring.exact_scores(snapshot, user, rows), expected, atol=1e-9)


@pytest.mark.parametrize("over", ["items", "users"])
def test_a_score_is_the_same_alone_and_in_a_batch(over: Over) -> None:
    """To the last bit, in any order."""
    snapshot = made(over, "weighted_mean", "residual", 1)
    together = scoring.exact_scores(snapshot, 3, np.arange(N_ITEMS))
    assert [float(scoring.exact_scores(snapshot, 3, np.array([row]))[0]) for row in range(N_ITEMS)] == together.tolist()
    assert scoring.exact_scores(snapshot, 3, np.arange(N_ITEMS)[::-1]).tolist() == together[::-1].tolist()


def test_lists_exclude_seen_and_excluded_items() -> None:
    """Alone and among others."""
    snapshot = made("items", "sum", "seen", 2)
    requests = [scoring.TopNRequest(user, 5, exclude=np.array([4])) for user in range(N_USERS)]
    for request, ranking in zip(requests, scoring.personal(snapshot, requests), strict=True):
        out = {4, *snapshot.seen_rows(request.user_row).tolist()}
        scores = scoring.exact_scores(snapshot, request.user_row, np.arange(N_ITEMS))
        left = sorted(set(range(N_ITEMS)) - out, key=lambda row: (-scores[row], -snapshot.popularity[row], row))
        assert ranking.rows.tolist() == left[:5]
        assert ranking.scores.tolist() == scores[left[:5]].tolist()


@pytest.mark.parametrize("over", ["items", "users"])
def test_popularity_fills_lists_behind_the_neighbours_items(over: Over) -> None:
    """These items are flagged as not personal; without neighbours they are the whole list."""
    popularity = np.array([3, 1, 4, 1, 5, 9, 2, 6, 5], np.float32)
    snapshot = dataclasses.replace(made(over, "sum", "seen", 4), popularity=popularity)
    lists = snapshot.neighbourhood
    assert lists is not None
    no_weights = sparse(np.zeros(lists.weights.shape, np.float32), np.zeros(lists.weights.shape, dtype=bool))
    without_neighbours = dataclasses.replace(
        snapshot,
        neighbourhood=dataclasses.replace(lists, weights=no_weights),
        item_bias=np.zeros(N_ITEMS, np.float32),
    )
    for user in range(N_USERS):
        unseen = [row for row in snapshot.popular_rows.tolist() if row not in snapshot.seen_rows(user)]
        (ranking,) = scoring.personal(without_neighbours, [scoring.TopNRequest(user, N_ITEMS)])
        assert ranking.rows.tolist() == unseen
        assert ranking.is_personal is not None
        assert not ranking.is_personal.any()
        (ranking,) = scoring.personal(snapshot, [scoring.TopNRequest(user, N_ITEMS)])
        among = scoring.personal_among(snapshot, scoring.TopNRequest(user, N_ITEMS), np.arange(N_ITEMS))
        assert ranking.is_personal is not None
        assert among.is_personal is not None
        assert among.is_personal.tolist() == ranking.is_personal.tolist()
        if over == "items":
            with_neighbour = {
                item for seen in snapshot.seen_rows(user).tolist() for item in stored(lists.weights, seen)
            }
        else:
            neighbours = stored(lists.weights, user)
            with_neighbour = {item for neighbour in neighbours for item in snapshot.seen_rows(neighbour).tolist()}
        assert [row in with_neighbour for row in ranking.rows.tolist()] == ranking.is_personal.tolist()


def test_similar_items_of_a_model_without_factors_share_users() -> None:
    """The cosine of the sets of users; items that share no user are left out."""
    snapshot = made("users", "sum", "seen", 3)
    seen = np.zeros((N_USERS, N_ITEMS))
    for user in range(N_USERS):
        seen[user, snapshot.seen_rows(user)] = 1
    shared = seen.T @ seen
    cosine = shared[2] / np.sqrt(shared[2, 2] * np.diag(shared))
    made_list = similar_list(snapshot, 2, N_ITEMS)
    expected = [row for row in np.argsort(-cosine, kind="stable").tolist() if row != 2 and cosine[row] > 0]
    assert made_list.rows == expected
    np.testing.assert_allclose(made_list.scores, cosine[expected])


@pytest.mark.parametrize("over", ["items", "users"])
def test_erasing_a_user_removes_their_weights(over: Over) -> None:
    """Rows move up, and the weights of others stay."""
    snapshot = made(over, "sum", "residual", 4)
    without = erased_users.without_users(snapshot, [3])
    assert without.neighbourhood is not None
    without_neighbours = made(over, "sum", "residual", 4)
    assert without_neighbours.neighbourhood is not None
    if over == "users":
        weights = without_neighbours.neighbourhood.weights
        weights.data[weights.indices == 3] = 0
    rows = np.arange(N_ITEMS)
    for before, after in ((2, 2), (5, 4), (11, 10)):
        expected = scoring.exact_scores(without_neighbours, before, rows)
        np.testing.assert_allclose(scoring.exact_scores(without, after, rows), expected, atol=1e-12)


def test_a_published_neighbourhood_reads_back_unchanged(tmp_path: Path) -> None:
    """Weights, zeros included, and the three fields; an unknown field value is refused."""
    snapshot = made("users", "mean", "residual", 5)
    directory = tmp_path / publication.publish(tmp_path, snapshot, data={}, measures={})
    mapped = artefact.load(directory)
    assert mapped.neighbourhood is not None
    assert snapshot.neighbourhood is not None
    assert mapped.neighbourhood.description() == {"over": "users", "combine": "mean", "signal": "residual"}
    assert mapped.neighbourhood.weights.data.tobytes() == snapshot.neighbourhood.weights.data.tobytes()
    assert artefact.read_manifest(directory)["model_bytes"] == artefact.size_bytes(snapshot)
    for name, word in (("combine", "median"), ("over", None), ("signal", 3)):
        manifest = artefact.read_manifest(directory)
        manifest["neighbourhood"][name] = word
        (directory / artefact.MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
        with pytest.raises(ModelRefused):
            artefact.load(directory)
        manifest["neighbourhood"][name] = snapshot.neighbourhood.description()[name]
        (directory / artefact.MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    artefact.load(directory)


def test_damaged_neighbours_are_refused(tmp_path: Path) -> None:
    """A row that is not there, and a neighbourhood that the arrays do not hold."""
    snapshot = made("items", "sum", "seen", 6)
    assert snapshot.neighbourhood is not None
    snapshot.neighbourhood.weights.indices[0] = N_ITEMS
    version = publication.publish(tmp_path, snapshot, data={}, measures={})
    with pytest.raises(ModelRefused, match="neighbour names rows"):
        artefact.load(tmp_path / version)
    table = tmp_path / version / "neighbour_weights.bin"
    table.write_bytes(table.read_bytes()[:-4])
    with pytest.raises(ModelRefused, match="neighbour_weights"):
        artefact.load(tmp_path / version)


def test_a_neighbourhood_of_the_wrong_shape_or_without_numbers_is_refused() -> None:
    """When it is built."""
    snapshot = made("items", "sum", "seen", 7)
    assert snapshot.neighbourhood is not None
    with pytest.raises(ModelRefused, match="neighbours have shape"):
        dataclasses.replace(
            snapshot, neighbourhood=Neighbourhood("users", "sum", "seen", snapshot.neighbourhood.weights)
        )
    broken = sparse(np.full((N_ITEMS, N_ITEMS), np.nan, np.float32), np.eye(N_ITEMS, dtype=bool))
    with pytest.raises(ModelRefused, match="not finite"):
        Neighbourhood("items", "sum", "seen", broken)
