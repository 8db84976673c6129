"""How good the lists of a fitted model are for the users of a hold-out.

Invariant: every model is judged by the same users and the same relevant items, by lists as the service makes them.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.training.algorithms.registry import ListTopN
from service.training.evaluation.measures.ranking import RANKING_MEASURES
from service.training.evaluation.measures.relevance import Relevance, relevant_items
from service.training.hold_out.split import MOST_USERS, HoldOut
from service.training.interactions import Float64

NDCG: Final = "ndcg@10"
RECALL: Final = "recall@20"
_NDCG_K: Final = 10
_RECALL_K: Final = 20


@dataclass(frozen=True, eq=False)
class ListQuality:
    """The measures of one model's lists.

    Attributes:
        ndcg: NDCG@10, the mean over the judged users.
        recall: Recall@20, likewise.
        by_user: Float64 (m,), NDCG@10 of each judged user.
        lists: Int32 (m, 20), the lists; -1 where one has ended.
    """

    ndcg: float
    recall: float
    by_user: Float64
    lists: NDArray[np.int32]

    def measures(self) -> dict[str, float]:
        """Return the measures by name, as in a manifest."""
        return {NDCG: self.ndcg, RECALL: self.recall}

    def standard_errors_above(self, other: "ListQuality") -> float:
        """Return how much larger the NDCG is than another model's for the same users, in standard errors.

        The difference is paired by user; it is infinite if every user's is the same and not 0, and 0 without any.
        """
        difference = self.by_user - other.by_user
        mean = float(difference.mean())
        if mean == 0:
            return 0.0
        if difference.size < 2:
            return 0.0
        error = float(difference.std(ddof=1)) / float(np.sqrt(difference.size))
        return mean / error if error > 0 else float(np.copysign(np.inf, mean))


def judged(hold_out: HoldOut) -> Relevance:
    """Return the judged users of a hold-out and their relevant items, the same ones each time."""
    return relevant_items(hold_out.hidden).sample(MOST_USERS, np.random.default_rng(0))


def quality(list_top_n: ListTopN, relevance: Relevance) -> ListQuality:
    """Make lists for the judged users, at least one, and measure them."""
    return quality_of(list_top_n(relevance.user_rows, _RECALL_K), relevance)


def quality_of(lists: NDArray[np.int32], relevance: Relevance) -> ListQuality:
    """Measure lists of the judged users, int32 (m, 20)."""
    hits = relevance.hits(lists)
    by_user = RANKING_MEASURES["ndcg"](hits[:, :_NDCG_K], relevance.counts)
    recall = RANKING_MEASURES["recall"](hits[:, :_RECALL_K], relevance.counts)
    return ListQuality(float(by_user.mean()), float(recall.mean()), by_user, lists)
