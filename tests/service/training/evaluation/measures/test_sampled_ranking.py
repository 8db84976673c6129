import numpy as np
import pytest

from service.training.algorithms.registry import ConfiguredAlgorithm
from service.training.data import datasets
from service.training.evaluation import splits
from service.training.evaluation.measures import sampled_ranking
from service.training.evaluation.measures.relevance import relevant_items
from service.training.interactions import no_progress
from tests.support.interactions import rated


def test_negatives_are_neither_seen_nor_relevant() -> None:
    """Each once, as many as asked for, or all there are; every free item can be drawn; a seed decides."""
    train = rated([(0, 0, 1), (0, 3, 1), (1, 1, 1), (0, 5, 1)], n_items=8)
    relevance = relevant_items(rated([(0, 4, 1), (1, 7, 1), (1, 0, 1)], n_items=8))
    free = [{1, 2, 6, 7}, {2, 3, 4, 5, 6}]
    seen: list[set[int]] = [set(), set()]
    for seed in range(30):
        drawn = sampled_ranking.sample_negatives(train, relevance, 3, np.random.default_rng(seed))
        assert np.array_equal(drawn, sampled_ranking.sample_negatives(train, relevance, 3, np.random.default_rng(seed)))
        for row, items in enumerate(drawn.tolist()):
            assert len(set(items)) == 3
            seen[row] |= set(items)
    assert seen == free
    (first, second) = sampled_ranking.sample_negatives(train, relevance, 6, np.random.default_rng(0)).tolist()
    assert (set(first[:4]), first[4:], set(second[:5]), second[5:]) == (free[0], [-1, -1], free[1], [-1])


def test_relevant_items_are_ranked_among_negatives() -> None:
    """By the model's scores: here popularity, so that training counts give the order."""
    data = datasets.read("demo:60x40x900")
    kept, held = splits.leave_one_out(data.user_rows, np.arange(len(data)))
    train, test = data.take(kept), data.take(held)
    candidate = ConfiguredAlgorithm.parse("popularity")
    snapshot = candidate.algorithm.fit(train, candidate.config, np.random.default_rng(0), no_progress)
    relevance = relevant_items(test)
    drawn = sampled_ranking.sample_negatives(train, relevance, 5, np.random.default_rng(1))
    lists = sampled_ranking.rank_among(snapshot, relevance, drawn, 3)
    scores = snapshot.item_bias
    for row, items in enumerate(lists.tolist()):
        candidates = [relevance.item_rows[row], *drawn[row].tolist()]
        assert items == sorted(candidates, key=lambda item: (-scores[item], item))[:3]
    by_user = sampled_ranking.sampled_tallies(lists, relevance, (1, 3), 5)
    hits = np.mean([item in items for items, item in zip(lists.tolist(), relevance.item_rows.tolist(), strict=True)])
    assert by_user["sampled5_hit_rate@3"].value() == pytest.approx(float(hits))
    assert all(name.startswith("sampled5_") for name in by_user)
