"""The scores of all items for one list, before any item is left out.

Invariant: an exact score is at most the approximate one plus `bound`, so that approximate scores choose the candidates
and exact ones decide (`scoring.top_n`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.api import wire
from service.lists.candidates import AnyRows
from service.models.fold_in.representation import UserRepresentation
from service.models.history.user_history import NO_HISTORY, UserHistory
from service.models.neighbourhood import Scores
from service.models.ranking import scoring, similarity
from service.models.ranking.indexed_best import indexed_best
from service.models.ranking.personal_lists import ranker_scores
from service.models.ranking.scoring import Rows
from service.models.snapshot import Float32, ModelSnapshot

# Gathering the factors of one item in so many costs as much as the product with those of all.
_GATHERED: Final = 6
_EPSILON: Final = float(np.finfo(np.float32).eps)


class ListUser(NamedTuple):
    """The user of a list.

    Attributes:
        row: The user in the model; None for a user whom the model was not trained on.
        representation: The user computed from live interactions; None for the trained one.
        seen_since: Rows seen since training in a model that computes no representation.
        history: The interactions that the representation is computed from; None for the training interactions.
        source: Where the items come from.
        shown: How often each row was shown since the user last acted on it, as far as it is known.
    """

    row: int | None = None
    representation: UserRepresentation | None = None
    seen_since: NDArray[np.integer[Any]] = scoring.NO_ROWS
    history: UserHistory | None = None
    source: wire.Source = "personal"
    shown: Mapping[int, int] = {}

    @classmethod
    def from_history(
        cls,
        row: int | None,
        representation: UserRepresentation | None,
        seen: NDArray[np.int32],
        history: UserHistory,
        shown: Mapping[int, int],
    ) -> "ListUser":
        """Return the user with this history, which has live interactions.

        Args:
            row: The user in the model; None for a user whom it was not trained on.
            representation: The user computed from the history; None if the model computes none.
            seen: Int32, ascending: the items to leave out.
            history: Training and live interactions.
            shown: How often each row was shown.
        """
        if representation is None:
            return cls(row, seen_since=seen, history=history, shown=shown)
        return cls(row, representation._replace(seen=seen), history=history, shown=shown)

    @property
    def is_known(self) -> bool:
        """Whether the model can score items for the user."""
        return self.row is not None or self.representation is not None

    def known_history(self, snapshot: ModelSnapshot) -> UserHistory:
        """Return the interactions of the user; none for an unknown one."""
        if self.history is not None:
            return self.history
        return NO_HISTORY if self.row is None else snapshot.user_history(self.row)

    def seen_rows(self, snapshot: ModelSnapshot) -> NDArray[np.integer[Any]]:
        """Return the seen items; they may repeat."""
        if self.representation is not None:
            return self.representation.seen
        if self.row is None:
            return self.seen_since
        seen = snapshot.seen_rows(self.row)
        return np.concatenate([seen, self.seen_since]) if self.seen_since.size else seen


class ItemScores(NamedTuple):
    """How to score items.

    Attributes:
        approximate: Returns new scores of some rows, float (m,), or of all, float (n_items,); -inf bars an item.
        bound: The largest excess of an exact score over the approximate one.
        exact: Returns the scores of some rows, float64 (m,).
        is_personal: Returns for some rows whether the user's history has a say: bool (m,), or None if it has in all.
        reranked: Returns the scores by the ranker of the model, float64 (m,), in whose order the best items by exact
            score are listed; None if exact scores order the list.
        n_candidates: How many items the ranker orders together; counts only with `reranked`.
        indexed: Returns the best rows by exact score, and those scores, from the barred rows, a count and the mask of a
            filter, without scoring all items; or None if all have to be scored. None of a model without an item index.
    """

    approximate: Callable[[Rows | None], Float32 | Scores]
    bound: float
    exact: Callable[[Rows], Scores]
    is_personal: Callable[[Rows], NDArray[np.bool_] | None] = lambda _rows: None
    reranked: Callable[[Rows], Scores] | None = None
    n_candidates: int = 0
    indexed: Callable[[AnyRows, int, NDArray[np.bool_] | None], tuple[Rows, Scores] | None] | None = None

    def listed(self, rows: Rows) -> Scores:
        """Return the scores of some rows as a list shows them without boosts, float64 (m,)."""
        return self.exact(rows) if self.reranked is None else self.reranked(rows)


def of_user(snapshot: ModelSnapshot, user: ListUser) -> ItemScores:
    """Score items for a user who `is_known`."""
    # With a representation the row does not count.
    row = user.row or 0
    if snapshot.neighbourhood is not None:
        scores, has_neighbour = scoring.neighbour_scores(snapshot, snapshot.neighbourhood, row, user.representation)
        return of_known(scores, has_neighbour.take)
    representation = user.representation or snapshot.trained_user(row)
    ranker = snapshot.ranker

    def approximate(rows: Rows | None) -> Float32:
        if rows is not None and rows.size * _GATHERED > len(snapshot.items):
            return approximate(None).take(rows)
        factors, bias = snapshot.item_factors, snapshot.item_bias
        if rows is not None:
            factors, bias = factors.take(rows, axis=0), bias.take(rows)
        scores: Float32 = factors @ representation.factors
        scores += bias
        return scores

    def exact(rows: Rows) -> Scores:
        return scoring.exact_scores(snapshot, row, rows, representation)

    bound, index = snapshot.max_exact_over_approx_of(representation), snapshot.item_index

    def indexed(barred: AnyRows, count: int, mask: NDArray[np.bool_] | None) -> tuple[Rows, Scores] | None:
        if index is None:
            return None
        return indexed_best(snapshot, index, representation.factors, bound, exact, barred, count, mask)

    return ItemScores(
        approximate,
        bound,
        exact,
        lambda rows: None if representation.factors.any() else np.zeros(rows.size, dtype=bool),
        None if ranker is None else lambda rows: ranker_scores(snapshot, ranker, representation, rows),
        0 if ranker is None else ranker.n_candidates,
        None if index is None else indexed,
    )


def of_popularity(snapshot: ModelSnapshot) -> ItemScores:
    """Score items by their popularity."""
    return of_known(snapshot.popularity.astype(np.float64))


def of_similarity(snapshot: ModelSnapshot, item_rows: Sequence[int]) -> ItemScores:
    """Score items by their mean similarity to some items; those without anything in common with any are barred.

    Args:
        snapshot: The model.
        item_rows: At least one row.
    """
    if snapshot.n_factors:
        return _by_factors(snapshot, item_rows)
    scores = np.full(len(snapshot.items), -np.inf)
    for item_row in item_rows:
        rows, cosines = similarity.shared_user_cosines(snapshot, item_row)
        scores[rows] = np.maximum(scores[rows], 0.0) + cosines
    scores /= len(item_rows)
    return of_known(scores)


def _by_factors(snapshot: ModelSnapshot, item_rows: Sequence[int]) -> ItemScores:
    found = [similarity.approximate_similarities(snapshot, item_row) for item_row in item_rows]
    n = len(found)
    approximate: Float32 = np.add.reduce([scores for scores, _ in found], axis=0) / np.float32(n)
    # The errors of the terms, and of their sum: each of n additions and a division is off by 2^-24 of at most 1.
    bound = found[0][1] + (n + 1) * _EPSILON

    def similarities(rows: Rows | None) -> Float32:
        return approximate.copy() if rows is None else approximate.take(rows)

    def exact(rows: Rows) -> Scores:
        sums = np.zeros(rows.size)
        for item_row in item_rows:
            sums += similarity.exact_similarities(snapshot, item_row, rows)
        return sums / n

    return ItemScores(similarities, bound, exact)


def of_known(
    scores: Scores, is_personal: Callable[[Rows], NDArray[np.bool_] | None] = lambda _rows: None
) -> ItemScores:
    """Return exact scores that are known of all items, float64 (n_items,)."""

    def copied(rows: Rows | None) -> Scores:
        return scores.copy() if rows is None else scores.take(rows)

    return ItemScores(copied, 0.0, scores.take, is_personal)
