"""One candidate, one split, a few measures: what a search asks again and again.

Invariant: what is not asked for is not computed. Errors need no list, and ranking measures need no predicted rating.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from service.errors import UsageError
from service.training.algorithms.registry import Candidate, Listing
from service.training.evaluation import top_n_lists
from service.training.evaluation.measures import per_user
from service.training.evaluation.measures.beyond_accuracy import Popularity
from service.training.evaluation.measures.per_user import MeasureName
from service.training.evaluation.measures.relevance import relevant
from service.training.interactions import Interactions, Progress, no_progress


def fit_and_measure(
    candidate: Candidate,
    train: Interactions,
    test: Interactions,
    rng: np.random.Generator,
    *,
    measures: Sequence[str],
    relevant_from: float | None = None,
    most_users: int | None = None,
    progress: Progress = no_progress,
) -> dict[str, float]:
    """Fit a candidate on one side of a split and measure it on the other.

    Args:
        candidate: An algorithm with its settings.
        train: What it learns from.
        test: What it is judged by, at least one interaction, over the same users and items.
        rng: Everything random in the fit.
        measures: Names such as "rmse" and "ndcg@10", see `service.training.evaluation.measures.per_user.MeasureName`.
        relevant_from: The least rating of a relevant item; None: every held-out item is relevant.
        most_users: Rank for at most so many users, the same ones for the same `test`; None: all.
        progress: Told of the fit.

    Returns:
        The value of each measure, under its name, in the order given.

    Raises:
        UsageError: There is no such measure, an error is asked for of an algorithm that predicts no ratings, or no
            held-out item is relevant.
        TrainingDiverged: The fit failed.
    """
    names = parse_measures(candidate, measures)
    of_lists = [name for name in names if not name.is_error]
    if of_lists and not len(relevant(test, relevant_from=relevant_from)):
        raise UsageError(f"no held-out item is relevant, so that {of_lists[0]} cannot be measured")
    snapshot = candidate.fit(train, candidate.config, rng, progress)
    predicted = None
    if len(of_lists) < len(names):
        predicted = candidate.predict(snapshot, test.user_rows, test.item_rows)
    return measure_fitted(
        partial(top_n_lists.top_n_lists, snapshot),
        predicted,
        train,
        test,
        measures=measures,
        relevant_from=relevant_from,
        most_users=most_users,
    )


def measure_fitted(
    listed: Listing,
    predicted: NDArray[np.float64] | None,
    train: Interactions,
    test: Interactions,
    *,
    measures: Sequence[str],
    relevant_from: float | None = None,
    most_users: int | None = None,
) -> dict[str, float]:
    """Measure a model that was fitted on one side of a split on the other.

    Args:
        listed: Makes the model's lists.
        predicted: Float64 (n,), its ratings of `test`; None if no error is among the measures.
        train: What it learnt from.
        test: What it is judged by.
        measures: As for `measure`, and so are the others.
        relevant_from: The least rating of a relevant item.
        most_users: Rank for at most so many users.

    Returns:
        The value of each measure, under its name, in the order given; NaN for one that is not defined.
    """
    names = [MeasureName.parse(text) for text in measures]
    values: dict[str, float | None] = {}
    of_lists = [name for name in names if not name.is_error]
    if predicted is not None:
        values |= {name: tally.value() for name, tally in per_user.error_tallies(predicted, test).items()}
    if of_lists:
        # The choice of users is no part of the trial: whatever its generator, they are the same.
        relevance = relevant(test, relevant_from=relevant_from).sample(most_users, np.random.default_rng(0))
        ranked = listed(relevance.user_rows, max(name.k or 0 for name in of_lists))
        by_user, together = per_user.exposure_tallies(of_lists, ranked, relevance.user_rows, Popularity.of(train))
        by_user |= per_user.ranking_tallies(of_lists, ranked, relevance)
        values |= {name: tally.value() for name, tally in by_user.items()} | together
    return {str(name): float("nan") if (value := values[str(name)]) is None else value for name in names}


def parse_measures(candidate: Candidate, measures: Sequence[str]) -> list[MeasureName]:
    """Return the measures, read, before anything is computed for them.

    Raises:
        UsageError: There is no such measure, or it is an error and the candidate predicts no ratings.
    """
    names = [MeasureName.parse(text) for text in measures]
    errors = [str(name) for name in names if name.is_error]
    if errors and candidate.kind == "ranking":
        raise UsageError(f"{candidate.name} ranks and predicts no ratings, so that it has no {errors[0]}")
    return names


def direction(measure: str) -> str:
    """Return "minimize" or "maximize", as what makes a measure better.

    Raises:
        UsageError: There is no such measure.
    """
    return "minimize" if MeasureName.parse(measure).lower_is_better else "maximize"
