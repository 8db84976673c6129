import numpy as np
import pytest

from service.training.evaluation.measures import per_user, subgroups
from service.training.evaluation.measures.per_user import MeasureName
from service.training.evaluation.measures.relevance import relevant_items
from tests.support.interactions import rated


def test_user_groups_are_thirds_by_activity() -> None:
    """Equally active users share a group; users without interactions are light."""
    lengths = [1, 1, 2, 5, 5, 9, 0]
    train = rated([(user, item, 3.0) for user, n in enumerate(lengths) for item in range(n)], n_users=7)
    assert subgroups.user_groups(train).tolist() == [0, 0, 1, 1, 1, 2, 0]


def test_all_equally_active() -> None:
    """Equal activity makes one group."""
    train = rated([(user, item, 3.0) for user in range(6) for item in range(2)])
    assert set(subgroups.user_groups(train).tolist()) == {0}
    assert set(subgroups.user_groups(rated([], n_users=2, n_items=2)).tolist()) == {0}


def test_item_groups_share_the_interactions() -> None:
    """A third of 12 to the most popular one, a third to the next two, the rest and the unknown one to the tail."""
    counts = [1, 4, 2, 2, 1, 2, 0]
    train = rated([(user, item, 3.0) for item, n in enumerate(counts) for user in range(n)], n_items=7)
    assert subgroups.item_groups(train).tolist() == [2, 0, 1, 1, 2, 2, 2]


def test_figures_of_groups_by_hand() -> None:
    """Users 0 and 1 are light and heavy; item 0 is the head, items 1 and 2 are the tail."""
    test = rated([(0, 0, 5), (0, 1, 3), (1, 2, 4)], n_items=3)
    predicted = np.array([4.0, 3.0, 2.0])
    relevance = relevant_items(test)
    lists = np.array([[0, 2], [0, -1]], dtype=np.int32)
    user_groups, item_groups = np.array([0, 2], dtype=np.int8), np.array([0, 2, 2], dtype=np.int8)
    found = per_user.error_tallies(predicted, test)
    ranked = per_user.ranking_tallies([MeasureName("ndcg", 2), MeasureName("recall", 2)], lists, relevance)
    by_user = subgroups.by_user_group(found, ranked, user_groups, 2)
    assert by_user["light"] == pytest.approx(
        {"n": 1, "rmse": 0.5**0.5, "ndcg@2": 1 / (1 + 1 / np.log2(3)), "recall@2": 0.5}
    )
    assert by_user["medium"] == {"n": 0, "rmse": None, "ndcg@2": None, "recall@2": None}
    assert by_user["heavy"] == pytest.approx({"n": 1, "rmse": 2.0, "ndcg@2": 0.0, "recall@2": 0.0})
    by_item = subgroups.by_item_group(predicted, test, lists, relevance, item_groups, 2)
    assert by_item["head"] == pytest.approx(
        {"n": 1, "rmse": 1.0, "ndcg@2": 1.0, "recall@2": 1.0, "share_of_lists@2": 2 / 3}
    )
    assert by_item["middle"]["rmse"] is by_item["middle"]["recall@2"] is None
    assert by_item["tail"] == pytest.approx(
        {"n": 2, "rmse": 2**0.5, "ndcg@2": 0.0, "recall@2": 0.0, "share_of_lists@2": 1 / 3}
    )
    assert "rmse" not in subgroups.by_item_group(None, test, lists, relevance, item_groups, 2)["head"]
    assert set(subgroups.by_user_group({}, ranked, user_groups, 2)["light"]) == {"n", "ndcg@2", "recall@2"}
