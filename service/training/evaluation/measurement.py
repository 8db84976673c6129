"""A few measures of one configured algorithm on one split, for a search or a training.

Invariant: only the requested measures are computed. Errors need no list, and ranking measures no predicted rating.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from service.errors import UsageError
from service.training.algorithms.registry import ConfiguredAlgorithm, ListTopN
from service.training.evaluation.measures import per_user
from service.training.evaluation.measures.beyond_accuracy import Popularity
from service.training.evaluation.measures.per_user import MeasureName
from service.training.evaluation.measures.relevance import relevant_items
from service.training.evaluation.top_n_lists import top_n_lists
from service.training.interactions import Interactions, Progress, no_progress


def fit_and_measure(
    candidate: ConfiguredAlgorithm,
    train: Interactions,
    test: Interactions,
    rng: np.random.Generator,
    *,
    measures: Sequence[str],
    relevant_from: float | None = None,
    most_users: int | None = None,
    progress: Progress = no_progress,
) -> dict[str, float]:
    """Fit an algorithm on one side of a split and measure it on the other.

    Args:
        candidate: An algorithm with its hyperparameters.
        train: The training side.
        test: The held-out side, at least one interaction, over the same users and items.
        rng: Decides everything random in the fit.
        measures: Names such as "rmse" and "ndcg@10", see `MeasureName`.
        relevant_from: The least rating of a relevant item; None: every held-out item is relevant.
        most_users: Judge the lists of at most so many users, the same ones for the same `test`; None: all.
        progress: Called during the fit.

    Returns:
        The value of each measure by name, in the order given; NaN if it is undefined.

    Raises:
        UsageError: A measure is unknown or does not suit the algorithm, or no held-out item is relevant.
        TrainingDiverged: The fit failed.
    """
    names = parse_measures(candidate, measures)
    of_lists = [name for name in names if not name.is_error]
    if of_lists and not len(relevant_items(test, relevant_from=relevant_from)):
        raise UsageError(f"No held-out item is relevant, so that {of_lists[0]} cannot be measured.")
    snapshot = candidate.algorithm.fit(train, candidate.config, rng, progress)
    predicted = None
    if len(of_lists) < len(names):
        predicted = candidate.algorithm.predict(snapshot, test.user_rows, test.item_rows)
    return measure_fitted(
        partial(top_n_lists, snapshot),
        predicted,
        train,
        test,
        measures=measures,
        relevant_from=relevant_from,
        most_users=most_users,
    )


def measure_fitted(
    list_top_n: ListTopN,
    predicted: NDArray[np.float64] | None,
    train: Interactions,
    test: Interactions,
    *,
    measures: Sequence[str],
    relevant_from: float | None = None,
    most_users: int | None = None,
) -> dict[str, float]:
    """Measure a fitted model as `fit_and_measure` does, by its lists and its ratings of `test`, float64 (n,).

    The ratings may be None if no error is among the measures.
    """
    names = [MeasureName.parse(text) for text in measures]
    values: dict[str, float | None] = {}
    of_lists = [name for name in names if not name.is_error]
    if predicted is not None:
        values |= {name: tally.value() for name, tally in per_user.error_tallies(predicted, test).items()}
    if of_lists:
        # A fixed seed, so that every candidate is judged by the same users.
        relevance = relevant_items(test, relevant_from=relevant_from).sample(most_users, np.random.default_rng(0))
        lists = list_top_n(relevance.user_rows, max(name.k or 0 for name in of_lists))
        by_user, of_all_lists = per_user.exposure_tallies(of_lists, lists, relevance.user_rows, Popularity.of(train))
        by_user |= per_user.ranking_tallies(of_lists, lists, relevance)
        values |= {name: tally.value() for name, tally in by_user.items()} | of_all_lists
    return {str(name): float("nan") if (value := values[str(name)]) is None else value for name in names}


def parse_measures(candidate: ConfiguredAlgorithm, measures: Sequence[str]) -> list[MeasureName]:
    """Parse names of measures, and check them against a candidate.

    Raises:
        UsageError: There is no such measure, or it is an error and the candidate predicts no ratings.
    """
    names = [MeasureName.parse(text) for text in measures]
    errors = [str(name) for name in names if name.is_error]
    if errors and candidate.algorithm.kind == "ranking":
        raise UsageError(f"{candidate.name} ranks and predicts no ratings, so that it has no {errors[0]}.")
    return names
