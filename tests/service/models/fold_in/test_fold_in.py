"""Histories, their weights, and users computed from them."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from service.errors import ModelRefused
from service.models.files import artefact
from service.models.files.erased_users import without_users
from service.models.fold_in.fold_in import fold_in
from service.models.fold_in.settings import FoldIn
from service.models.history.user_history import DISMISS, PURCHASE, RATING, UserHistory
from service.models.history.weights import HistoryWeights
from service.models.neighbourhood import Neighbourhood
from service.models.publication import publication
from service.models.ranking import scoring
from service.models.snapshot import ModelSnapshot
from service.models.user_clusters import UserClusters
from service.training.algorithms.popularity import PopularityConfig
from service.training.assembly import assemble, time_ranks
from tests.support.interactions import rated

Make = Callable[..., ModelSnapshot]
WEIGHTS = HistoryWeights(half_life=2.0, half_life_days=10.0, window=3, dislike_below=2.5, dislike_weight=-0.5)


def history(rows: list[int], values: list[float], types: list[int], times_s: list[int] | None = None) -> UserHistory:
    return UserHistory(
        np.array(rows, np.int32),
        np.array(values, np.float32),
        np.array(types, np.uint8),
        None if times_s is None else np.array(times_s, np.int64),
    )


def test_weights_fall_with_later_interactions_and_with_age() -> None:
    """Within the window; a low rating and a dismissal are dislikes."""
    day_s = 86_400
    whole = history([9, 4, 2, 7], [5, 2, 5, 5], [RATING, RATING, PURCHASE, DISMISS], [0, 0, 10 * day_s, 20 * day_s])
    recent = WEIGHTS.recent(whole)
    assert recent.rows.tolist() == [4, 2, 7]
    old, liked, last = 0.5 * 0.5**1 * 0.5**2, 0.5**0.5 * 0.5**1, 0.5
    # Together dislikes weigh at most half of what is liked.
    share = 0.5 * liked / (old + last)
    np.testing.assert_allclose(WEIGHTS.of(recent), [-old * share, liked, -last * share])
    without_times = recent._replace(times_s=None)
    share = 0.5 * 0.5**0.5 / (0.5 * 0.5 + 0.5)
    np.testing.assert_allclose(WEIGHTS.of(without_times), [-0.5 * 0.5 * share, 0.5**0.5, -0.5 * share])


@pytest.mark.parametrize(
    "bad",
    [
        {"half_life": 0.0},
        {"window": -1},
        {"dislike_weight": float("nan")},
        {"long_half_life": 0.0},
        {"long_weight": -0.1},
    ],
)
def test_impossible_weights_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ModelRefused):
        HistoryWeights(**bad)  # type: ignore[arg-type]  # any of the fields


@pytest.mark.parametrize("norm_exponent", [0.0, 0.5])
def test_a_decayed_sum_is_the_sum_of_input_factors(make_snapshot: Make, norm_exponent: float) -> None:
    """By the plain definition, for a list as for a single score."""
    made = make_snapshot(n_users=3, n_items=50)
    inputs = np.random.default_rng(1).normal(size=made.item_factors.shape).astype(np.float32)
    how = FoldIn("decayed_sum", WEIGHTS, {"norm_exponent": norm_exponent})
    snapshot = dataclasses.replace(made, input_factors=inputs, fold_in=how)
    recent = history([4, 2, 7], [2, 5, 5], [RATING, PURCHASE, DISMISS])
    user = fold_in(snapshot, recent)
    assert user is not None
    weights = WEIGHTS.of(recent)
    expected = sum(weight * inputs[row].astype(np.float64) for weight, row in zip(weights, [4, 2, 7], strict=True))
    np.testing.assert_allclose(user.factors, expected / np.abs(weights).sum() ** norm_exponent, rtol=1e-5, atol=1e-6)
    assert user.seen.tolist() == [2, 4, 7]
    requests = [scoring.TopNRequest(0, 10, user=user), *(scoring.TopNRequest(row, 10) for row in (0, 1, 2, 0, 1))]
    ranking, *trained = scoring.personal(snapshot, requests)
    (alone,) = scoring.personal(snapshot, requests[:1])
    assert ranking.rows.tolist() == alone.rows.tolist()
    scores = scoring.exact_scores(snapshot, 0, np.arange(50), user)
    allowed = [row for row in range(50) if row not in {2, 4, 7}]
    assert ranking.rows.tolist() == sorted(allowed, key=lambda row: -scores[row])[:10]
    assert ranking.scores.tolist() == scores[ranking.rows].tolist()
    for request, one in zip(requests[1:], trained, strict=True):
        assert one.rows.tolist() == scoring.personal(snapshot, [request])[0].rows.tolist()


@pytest.mark.parametrize("n_requests", [1, 6])
def test_a_user_given_as_trained_gets_the_same_list(make_snapshot: Make, n_requests: int) -> None:
    """By the row or by the representation, alone and in a batch; excluded items are left out of both."""
    snapshot = make_snapshot(n_items=300)
    excluded = np.flatnonzero(np.random.default_rng(2).random(300) < 0.3)
    by_row = [scoring.TopNRequest(user, 12, exclude=excluded) for user in range(n_requests)]
    by_user = [request._replace(user=snapshot.trained_user(request.user_row)) for request in by_row]
    for a, b in zip(scoring.personal(snapshot, by_row), scoring.personal(snapshot, by_user), strict=True):
        assert a.rows.tolist() == b.rows.tolist()
        assert a.scores.tolist() == b.scores.tolist()
        assert not np.isin(a.rows, excluded).any()
    among = scoring.personal_among(snapshot, by_user[0], np.arange(300))
    assert among.rows.tolist() == scoring.personal(snapshot, by_row)[0].rows.tolist()


@given(
    pairs=st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 9), st.integers(0, 3)), min_size=1, unique_by=lambda p: p[:2]
    )
)
def test_histories_are_in_the_order_of_time_and_then_of_the_source(pairs: list[tuple[int, int, int]]) -> None:
    """The rank and the history of each user agree with a sort."""
    times = [time for _, _, time in pairs]
    data = rated([(user, item, 1.0 + item) for user, item, _ in pairs], times=times)
    snapshot = assemble(data, "popularity", PopularityConfig())
    ranks = time_ranks(data)
    for user in range(len(data.users)):
        own = [at for at in range(len(data)) if data.user_rows[at] == user]
        own.sort(key=lambda at: times[at])
        assert [int(ranks[at]) for at in own] == list(range(len(own)))
        got = snapshot.user_history(user)
        assert got.rows.tolist() == data.item_rows[own].tolist()
        assert got.values.tolist() == data.ratings[own].tolist()
        assert got.times_s is not None
        assert got.times_s.tolist() == [times[at] for at in own]


def test_the_fold_in_and_the_order_survive_publication(tmp_path: Path, make_snapshot: Make) -> None:
    made = make_snapshot(n_users=4, n_items=20)
    n = made.history.nnz
    rng = np.random.default_rng(5)
    snapshot = dataclasses.replace(
        made,
        history_ranks=rng.permutation(n).astype(np.int32),
        history_times=rng.integers(0, 10**9, n),
        history_types=rng.integers(0, 5, n).astype(np.uint8),
        input_factors=rng.normal(size=made.item_factors.shape).astype(np.float32),
        fold_in=FoldIn("decayed_sum", WEIGHTS, {"norm_exponent": 0.5}),
        user_clusters=UserClusters(np.array([0, 1, 1, 0], np.uint8), np.array([[3, 1, 7], [2, 0, 9]], np.int32)),
    )
    version = publication.publish(tmp_path, snapshot, data={}, measures={})
    loaded = artefact.load(tmp_path / version)
    assert loaded.fold_in == snapshot.fold_in
    assert loaded.user_clusters is not None
    assert loaded.user_clusters.of_users.tolist() == [0, 1, 1, 0]
    assert loaded.user_clusters.items.tolist() == [[3, 1, 7], [2, 0, 9]]
    remaining = without_users(loaded, [0]).user_clusters
    assert remaining is not None
    assert remaining.of_users.tolist() == [1, 1, 0]
    for user in range(4):
        before, after = snapshot.user_history(user), loaded.user_history(user)
        assert [part.tolist() for part in before if part is not None] == [
            part.tolist() for part in after if part is not None
        ]
        folded, again = fold_in(snapshot, before), fold_in(loaded, after)
        assert folded is not None
        assert again is not None
        assert folded.factors.tobytes() == again.factors.tobytes()


@given(seed=st.integers(0, 1000), n=st.integers(1, 12), offset=st.integers(0, 5), bar=st.booleans())
def test_a_list_from_inputs_is_the_one_of_the_whole_catalogue(seed: int, n: int, offset: int, bar: bool) -> None:
    """The sparse path and the dense one have the same rows and bits; negative weights and short lists included."""
    rng = np.random.default_rng(seed)
    n_items = 300
    density = rng.choice([0.02, 0.2])
    dense = (rng.normal(size=(n_items, n_items)) * (rng.random((n_items, n_items)) < density)).astype(np.float32)
    weights = csr_array(dense)
    weights.indices = weights.indices.astype(np.int32)
    data = rated([(0, int(row), 1.0) for row in rng.permutation(n_items)[:6]], n_items=n_items)
    snapshot = assemble(
        data,
        "popularity",
        PopularityConfig(),
        neighbourhood=Neighbourhood("items", "sum", "seen", weights),
        fold_in=FoldIn("neighbour_sum", HistoryWeights(half_life=3.0)),
    )
    excluded = np.flatnonzero(rng.random(n_items) < 0.2) if bar else np.array([3, 5])
    request = scoring.TopNRequest(0, n, offset, excluded, snapshot.trained_user(0))
    (ranking,) = scoring.personal(snapshot, [request])
    # A bias of the smallest number leaves the order, and takes the dense path.
    biased = dataclasses.replace(snapshot, item_bias=np.full(n_items, 1e-30, np.float32))
    (expected,) = scoring.personal(biased, [request])
    assert ranking.rows.tolist() == expected.rows.tolist()
    np.testing.assert_allclose(ranking.scores, expected.scores, rtol=0, atol=1e-29)
