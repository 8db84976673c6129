"""Next-item models learn what follows what."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.models.fold_in.fold_in import fold_in
from service.models.history.weights import HistoryWeights
from service.models.ranking import scoring
from service.models.snapshot import ModelSnapshot
from service.training.algorithms.kernels import threads
from service.training.algorithms.kernels.next_item.decayed_pairs import PairWeights, add_pairs, occurrences
from service.training.algorithms.kernels.next_item.decayed_tables import table_statistics
from service.training.algorithms.kernels.next_item.item_sequences import sequences
from service.training.algorithms.next_item import factor_form, list_form, next_item
from service.training.algorithms.next_item.next_item import NextItemConfig
from service.training.algorithms.popularity import PopularityConfig
from service.training.algorithms.registry import ConfiguredAlgorithm
from service.training.assembly import assemble, history_entries
from service.training.data import datasets
from service.training.evaluation import splits
from service.training.evaluation.measures.ranking import ndcg
from service.training.evaluation.measures.relevance import relevant_items
from service.training.evaluation.top_n_lists import top_n_lists
from service.training.interactions import Interactions, no_progress
from tests.reference import next_item as reference
from tests.support.interactions import rated

DAY_S = 86_400


def fitted(data: Interactions, **settings: float) -> ModelSnapshot:
    return next_item.fit(data, NextItemConfig(**settings), np.random.default_rng(0), no_progress)  # type: ignore[arg-type]


@st.composite
def timed_sets(draw: st.DrawFn) -> Interactions:
    pairs = draw(
        st.permutations(draw(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6)), min_size=1, unique=True)))
    )
    rows = [(user, item, draw(st.sampled_from([1.0, 3.0, 5.0]))) for user, item in pairs]
    times = draw(st.none() | st.lists(st.integers(0, 9), min_size=len(rows), max_size=len(rows)))
    return rated(rows, times=None if times is None else [DAY_S * time for time in times], n_users=4, n_items=7)


@st.composite
def weightings(draw: st.DrawFn) -> tuple[HistoryWeights, PairWeights]:
    lengths = st.none() | st.floats(0.3, 20)
    window, long_weight = draw(st.integers(1, 8)), draw(st.sampled_from([0.0, 0.5]))
    weights = HistoryWeights(
        half_life=draw(lengths),
        half_life_days=draw(lengths),
        window=window,
        dislike_below=2.0,
        dislike_weight=-0.5,
        long_half_life=draw(lengths),
        long_weight=long_weight,
    )
    return weights, PairWeights(window, long_weight, draw(st.floats(0, 0.9)), draw(st.floats(0, 1)))


@settings(deadline=None)  # the first example may compile
@given(timed_sets(), weightings())
def test_pair_sums_are_those_of_written_out_inputs(
    data: Interactions, weighting: tuple[HistoryWeights, PairWeights]
) -> None:
    """Over all half-lives, windows, horizons and reverse weights, with dislikes and equal times."""
    weights, how = weighting
    expected = reference.statistics(assemble(data, "popularity", PopularityConfig()), weights, how)
    ordered = sequences(history_entries(data), weights)
    found = occurrences(ordered)
    gram, cross = np.zeros((7, 7)), np.zeros((7, 7))
    later = np.empty((2, how.window + 1))
    for item in range(7):
        add_pairs(item, ordered, found, how, later, gram[item], cross[item])
    np.testing.assert_allclose(gram, expected[0], atol=2e-5)
    np.testing.assert_allclose(cross.T, expected[1], atol=2e-5)


@settings(deadline=None)
@given(timed_sets(), weightings())
def test_sums_in_a_basis_are_projected_pair_sums(
    data: Interactions, weighting: tuple[HistoryWeights, PairWeights]
) -> None:
    """Without a window, which the linear-time recursion leaves open."""
    weights, how = weighting
    weights, how = dataclasses.replace(weights, window=7), how._replace(window=7)
    gram, cross = reference.statistics(assemble(data, "popularity", PopularityConfig()), weights, how)
    table = np.random.default_rng(0).standard_normal((7, 3), dtype=np.float32)
    found = table_statistics(sequences(history_entries(data), weights), how, table)
    np.testing.assert_allclose(found.gram, table.T @ gram @ table, atol=1e-4)
    np.testing.assert_allclose(found.cross.T, table.T @ cross, atol=1e-4)


@pytest.fixture(scope="module")
def data() -> Interactions:
    return datasets.read("demo:90x60x1500")


@pytest.mark.parametrize("whole_items", [100, 0])
@pytest.mark.parametrize("n_kept", [7, 1000])
def test_lists_agree_with_the_reference(data: Interactions, whole_items: int, n_kept: int) -> None:
    """Solved as a whole, or target by target from the inputs that precede it."""
    config = NextItemConfig(reverse=0.25, look_ahead=0.4, n_neighbours=n_kept)
    weights = next_item.history_weights(config, data)
    how = PairWeights(config.window, config.long_weight, 0.4, 0.25)
    ordered = sequences(history_entries(data), weights)
    penalties, scales = next_item.penalties(ordered.counts, config, weights), next_item.scales(ordered.counts, config)
    lists = list_form.fit(ordered, how, penalties, scales, n_kept, whole_items=whole_items)
    gram, cross = reference.statistics(assemble(data, "popularity", PopularityConfig()), weights, how)
    expected = reference.lists(gram, cross, penalties, scales, n_kept, by_target=whole_items == 0)
    assert lists.dtype == np.float32
    assert lists.indices.dtype == np.int32
    assert lists.has_sorted_indices
    np.testing.assert_allclose(lists.toarray(), expected, atol=1e-4 * np.abs(expected).max())


def test_factors_agree_with_the_reference(data: Interactions) -> None:
    """Scores are those of the regression restricted to the basis."""
    config = NextItemConfig(reverse=0.25, look_ahead=0.4, form="factors", n_factors=12)
    snapshot = next_item.fit(data, config, np.random.default_rng(3), no_progress)
    weights = next_item.history_weights(config, data)
    counts = np.bincount(data.item_rows, minlength=len(data.items))
    gram, cross = reference.statistics(snapshot, weights, PairWeights(50, config.long_weight, 0.4, 0.25))
    basis = snapshot.input_factors
    assert basis is not None
    expected = reference.in_basis(
        gram, cross, factor_form._PENALTY_SHARE * next_item.penalties(counts, config, weights), basis
    )
    expected *= next_item.scales(counts, config)
    np.testing.assert_allclose(basis @ snapshot.item_factors.T, expected, atol=1e-3 * np.abs(expected).max())
    for user_row in (0, 17):
        folded = fold_in(snapshot, snapshot.user_history(user_row))
        assert folded is not None
        np.testing.assert_allclose(folded.factors, snapshot.user_factors[user_row], atol=1e-5)


def test_factors_do_not_depend_on_threads(data: Interactions) -> None:
    """Nor on their timing."""
    config = NextItemConfig(form="factors", n_factors=8)
    models = []
    for n_threads in (1, 4):
        with threads.limit(n_threads):
            models.append(next_item.fit(data, config, np.random.default_rng(0), no_progress))
    assert models[0].item_factors.tobytes() == models[1].item_factors.tobytes()
    assert models[0].user_factors.tobytes() == models[1].user_factors.tobytes()
    assert models[0].settings == models[1].settings
    assert models[0].settings["form"] == "factors"


def test_the_inputs_of_training_are_those_of_fold_in(data: Interactions) -> None:
    """So that the served list of a user is the validated one."""
    data = dataclasses.replace(data, timestamps=np.random.default_rng(0).integers(0, 10**6, len(data)))
    snapshot = fitted(data, half_life_days=3.0, window=9, look_ahead=0, reverse=0)
    assert snapshot.fold_in is not None
    inputs = next_item.input_matrix(
        sequences(history_entries(data), snapshot.fold_in.weights), snapshot.fold_in.weights
    )
    for user_row in range(len(data.users)):
        user = snapshot.trained_user(user_row)
        expected = np.zeros(len(data.items))
        expected[user.inputs] = user.weights
        np.testing.assert_allclose(inputs[[user_row]].toarray()[0], expected, atol=1e-6)


def test_the_next_item_of_a_cycle_is_found() -> None:
    """Users go round a cycle of items from different starts: the first place is the next item, not a popular one."""
    n_items = 20
    rows = [(user, (user + step) % n_items, 5.0) for user in range(60) for step in range(5)]
    snapshot = fitted(rated(rows, times=list(range(len(rows)))))
    assert snapshot.settings["form"] == "lists"
    for user_row in range(60):
        (ranking,) = scoring.personal(snapshot, [scoring.TopNRequest(user_row, 3)])
        assert ranking.rows[0] == (user_row + 5) % n_items


def test_of_equal_times_the_later_line_is_the_later_interaction() -> None:
    """And without times the order is that of the source."""
    rows = [(user, (user + step) % 20, 5.0) for user in range(60) for step in range(5)]
    by_line = fitted(rated(rows), look_ahead=0, reverse=0)
    at_once = fitted(rated(rows, times=[7] * len(rows)), look_ahead=0, reverse=0)
    assert by_line.neighbourhood is not None
    assert at_once.neighbourhood is not None
    assert by_line.neighbourhood.weights.data.tobytes() == at_once.neighbourhood.weights.data.tobytes()
    turned = fitted(rated(rows[::-1]), look_ahead=0, reverse=0)
    assert turned.neighbourhood is not None
    assert turned.neighbourhood.weights[[4], [3]] > turned.neighbourhood.weights[[4], [5]]
    assert by_line.neighbourhood.weights[[4], [5]] > by_line.neighbourhood.weights[[4], [3]]


def test_lists_of_users_without_a_signal_are_popular(data: Interactions) -> None:
    """A user whose only item leads nowhere still gets a full list."""
    rows = [(user, item, 5.0) for user in range(30) for item in range(user % 3, 12)]
    snapshot = fitted(rated([*rows, (30, 12, 5.0)]))
    (ranking,) = scoring.personal(snapshot, [scoring.TopNRequest(30, 8)])
    assert ranking.rows.tolist() == scoring.popular(snapshot, 8, exclude=np.array([12])).rows.tolist()


def test_settings_that_are_not_set_are_chosen_and_published(data: Interactions) -> None:
    """The manifest says which; a setting that is set is obeyed."""
    chosen = fitted(data)
    assert (chosen.settings["reverse"], chosen.settings["look_ahead"]) in next_item._CHOICES
    obeyed = fitted(data, reverse=0.7)
    assert obeyed.settings["reverse"] == 0.7
    assert obeyed.settings["look_ahead"] in {0.0, 0.4}


def test_on_sparse_purchases_it_is_ahead_of_models_without_an_order() -> None:
    """Chains of items with a long tail, about eight purchases each: popularity, then EASE, then the next item."""
    rng = np.random.default_rng(5)
    n_users, n_items = 1500, 600
    appeal = rng.permutation(n_items)[:, np.newaxis] + 1.0
    # Each item leads to three others, to popular ones more often.
    leads_to = np.array(
        [rng.choice(n_items, 3, replace=False, p=(1 / appeal[:, 0]) / (1 / appeal).sum()) for _ in appeal]
    )
    rows = []
    for user in range(n_users):
        item, seen = int(rng.integers(n_items)), set[int]()
        for _ in range(int(rng.integers(5, 12))):
            while item in seen:
                item = int(rng.integers(n_items))
            seen.add(item)
            rows.append((user, item, 1.0))
            item = int(leads_to[item, rng.integers(3)] if rng.random() < 0.7 else rng.integers(n_items))
    data = rated(rows, times=list(range(len(rows))), n_items=n_items)
    assert data.timestamps is not None
    train, test = (data.take(side) for side in splits.leave_one_out(data.user_rows, data.timestamps))
    relevance = relevant_items(test)
    found = {}
    for name in ("popularity", "ease", "next_item"):
        candidate = ConfiguredAlgorithm.parse(name)
        snapshot = candidate.algorithm.fit(train, candidate.config, np.random.default_rng(0), no_progress)
        lists = top_n_lists(snapshot, relevance.user_rows, 10)
        found[name] = float(ndcg(relevance.hits(lists), relevance.counts).mean())
    assert found["popularity"] < found["ease"] < found["next_item"]
    assert found["next_item"] > 1.1 * found["ease"]
