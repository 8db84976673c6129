"""Compares algorithms: the same splits for all, the same generator for each one's fit, the same users drawn again.

An algorithm that fails costs its own row and not the comparison: its result says why, and has no measures.

Invariants: what is measured was not learnt from; predicted ratings are clipped to the rating scale of the whole set,
and lists are those that would be served. The popularity baseline is always in the result. The result is a function of
data, candidates and protocol, apart from seconds and bytes.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import numpy as np

from service.errors import RecollectError, UsageError
from service.training.algorithms import hyperparameters
from service.training.algorithms.registry import Candidate
from service.training.evaluation import paired_comparison, resampling
from service.training.evaluation.algorithm_result import ALL_SHOWN, Outcome, PreparedSplit, mean
from service.training.evaluation.evaluation_protocol import SPLIT_DESCRIPTIONS, TIME_SPLITS, EvaluationProtocol
from service.training.evaluation.leakage import Leakage
from service.training.evaluation.measures import serving_cost
from service.training.evaluation.measures.prediction_error import exceeds, format_measure, rmse
from service.training.evaluation.split_dataset import Split, SplitDataset
from service.training.evaluation.warm_up import warm_up
from service.training.interactions import Interactions, Progress, no_progress
from service.training.suitability import why_not_ratings

BASELINE: Final = "popularity"


def compare(
    cut: SplitDataset,
    candidates: Sequence[Candidate],
    protocol: EvaluationProtocol,
    *,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Measure algorithms on the same splits.

    Args:
        cut: The data and how it is split, see `split_dataset.read` and `split_dataset.cut`.
        candidates: What to compare, in the order of the result; the popularity baseline is added if it is not there.
        protocol: What `cut` was made by, and what to measure.
        progress: Told of the splits of each algorithm.

    Returns:
        `{"data", "protocol", "results", "comparisons", "leakage", "notes"}` as plain JSON values, as docs/evaluation.md
        describes them.

    Raises:
        UsageError: No algorithm, a set that cannot be split so, or no relevant item.
    """
    if not candidates:
        raise UsageError("no algorithm is given to evaluate")
    outcomes = _outcomes(candidates)
    found = Leakage(n_left_out=cut.n_left_out)
    is_held_out = np.zeros(len(cut.data.users), dtype=bool)
    n_judged, n_without = 0, 0
    of_mean: list[float] = []
    n_steps, n_done = protocol.n_splits * len(outcomes), 0
    for index, split in enumerate(cut.splits()):
        # Only now is it known that the set can be split, and that compiling is worth the while.
        if not index:
            for outcome in outcomes:
                # What cannot be fitted will say so when it is measured.
                with suppress(Exception):
                    warm_up(outcome.candidate, split.train)
            progress("evaluate", 0, n_steps)
        found.add(split.train, split.test)
        is_held_out[split.test.user_rows] = True
        bench = PreparedSplit.of(split, protocol, index, has_errors=not cut.data.all_equal)
        n_judged, n_without = n_judged + len(bench.relevance), n_without + bench.relevance.n_without
        of_mean.append(_rmse_of_mean(split))
        for outcome in outcomes:
            _measure(outcome, bench)
            n_done += 1
            progress("evaluate", n_done, n_steps)
    units = resampling.ResamplingUnits.of(np.flatnonzero(is_held_out), is_held_out.size, protocol.seeds().resampling)
    resampled = [resampling.bootstrap(units, outcome.by_user) for outcome in outcomes]
    rmse_of_mean = None if cut.data.all_equal else float(np.mean(of_mean))
    return {
        "data": describe_dataset(cut.data),
        "protocol": _described(cut.data, protocol, n_judged, n_without) | {"rmse_of_mean": rmse_of_mean},
        "results": [outcome.result(drawn) for outcome, drawn in zip(outcomes, resampled, strict=True)],
        "comparisons": paired_comparison.comparisons(units, outcomes, resampled, protocol.ks),
        "leakage": found.as_json() | {"in_history": {outcome.label: outcome.n_leaked for outcome in outcomes}},
        "notes": [
            *_notes(cut, found, outcomes, protocol, n_judged, n_without),
            *_meaning(cut.data, outcomes, protocol, rmse_of_mean),
        ],
    }


def _measure(outcome: Outcome, bench: PreparedSplit) -> None:
    """Measure one algorithm on one split, unless it has failed already; a failure is the algorithm's alone."""
    if outcome.failed is not None:
        return
    try:
        outcome.measure(bench)
    except RecollectError as error:
        outcome.fail(str(error))
    except MemoryError:
        outcome.fail("there is not enough memory for it")
    # Settings and data can break a solver in ways that only the solver knows.
    except Exception as error:  # noqa: BLE001
        outcome.fail(f"{type(error).__name__}: {error}")


def _rmse_of_mean(split: Split) -> float:
    """Return the error of predicting the mean training rating throughout."""
    mean = np.full(len(split.test), split.train.ratings.mean(dtype=np.float64))
    return rmse(mean, split.test.ratings)


def describe_dataset(data: Interactions) -> dict[str, Any]:
    """Return what a data set is, as plain JSON values."""
    return {
        "source": data.report.source,
        "fingerprint": data.fingerprint,
        "n_users": len(data.users),
        "n_items": len(data.items),
        "n_ratings": len(data),
        "bad_rows": data.report.n_bad_rows,
        "duplicates": data.report.n_duplicates,
        "rating_min": data.rating_min,
        "rating_max": data.rating_max,
        "rated_share": round(data.rated_share, 6),
    }


def _outcomes(candidates: Sequence[Candidate]) -> list[Outcome]:
    """Begin an outcome for each candidate and for the baseline, under labels that differ."""
    everyone = list(candidates)
    if all(candidate.name != BASELINE for candidate in everyone):
        everyone.append(Candidate.parse(BASELINE))
    seen: Counter[str] = Counter()
    outcomes = []
    for candidate in everyone:
        wanted = candidate.label or _told_apart(candidate, everyone)
        seen[wanted] += 1
        n = seen[wanted]
        outcomes.append(Outcome(candidate, wanted if n == 1 else f"{wanted} ({n})"))
    return outcomes


def _told_apart(candidate: Candidate, among: Sequence[Candidate]) -> str:
    """Return a candidate's name, with the settings in which it differs from others of that name."""
    own = hyperparameters.as_json(candidate.config)
    others = [
        hyperparameters.as_json(other.config) for other in among if other.name == candidate.name and not other.label
    ]
    differing = [name for name, value in own.items() if any(other[name] != value for other in others)]
    return " ".join([candidate.name, *(f"{name}={_short(own[name])}" for name in differing)])


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).lower()


def _described(data: Interactions, protocol: EvaluationProtocol, n_judged: int, n_without: int) -> dict[str, Any]:
    """Say in plain JSON values how everything was measured."""
    by_relevance = (
        "every held-out interaction"
        if protocol.relevant_from is None
        else f"held-out interactions rated at least {protocol.relevant_from:g}"
    )
    return {
        "split": protocol.split,
        "split_in_words": SPLIT_DESCRIPTIONS[protocol.split],
        "folds": protocol.n_splits,
        "test_share": protocol.test_share if protocol.split in TIME_SPLITS else None,
        "seed": protocol.seed,
        "clipped_to": [data.rating_min, data.rating_max],
        "k": list(protocol.ks),
        "mrr": f"mrr@{protocol.ks[-1]}",
        "catalogue": "full: every item but the user's training items",
        "relevant": by_relevance,
        "judged_users": n_judged,
        "users_without_relevant": n_without,
        "most_users": protocol.most_users,
        "sampled_negatives": protocol.n_negatives,
        "mean": "over the folds",
        "ci95": {
            "rmse, mae": "of the mean over the folds, Student's t; with a single split by the bootstrap over users",
            "coverage, gini": "of the mean over the folds, Student's t; none with a single split",
            "all others": f"percentiles of {resampling.N_RESAMPLES} bootstrap samples of users, all folds together",
        },
        "comparisons": {
            "difference": "a less b, of the same users",
            "ci95": f"percentiles of {resampling.N_RESAMPLES} paired bootstrap samples of users",
            "p": f"two-sided randomisation test, {resampling.N_SWAPS} swaps of labels by user; of rmse, of its square",
            "p_holm": "p by Holm's correction for all pairs of one measure",
        },
        "fit_s": "mean seconds per fold, compilation apart",
        "predict_s": "mean seconds per fold; none for an algorithm that ranks only",
        "rank_s": "mean seconds per fold for the lists of all judged users and their measures",
        "model_bytes": "mean per fold, history included",
        "peak_bytes": "most resident memory of the process while fitting and predicting, data included",
        "list_us": f"median microseconds of one served list of {serving_cost.LIST_LENGTH}, alone, on the first fold",
        "pairwise_list_us": "the same with every unseen item predicted on its own, extrapolated from sampled pairs",
    }


def _notes(
    cut: SplitDataset,
    found: Leakage,
    outcomes: Sequence[Outcome],
    protocol: EvaluationProtocol,
    n_judged: int,
    n_without: int,
) -> list[str]:
    notes = [*cut.notes, *found.notes()]
    notes += [
        f"{outcome.label} says that it has seen {outcome.n_leaked} held-out pairs: its figures cannot be trusted."
        for outcome in outcomes
        if outcome.n_leaked
    ]
    if n_without:
        notes.append(f"{n_without} held-out users without a relevant item are not in the ranking measures.")
    if protocol.most_users is not None:
        n = protocol.n_splits
        each = "" if n == 1 else f", {protocol.most_users} at most in each of {n} splits"
        notes.append(f"Lists are judged for {n_judged} sampled users only{each}.")
    if protocol.n_negatives is not None:
        notes.append(
            f"Measures named sampled{protocol.n_negatives}_ rank among sampled items, cannot be compared with those of "
            "the full catalogue, and need not even order models alike (Krichene and Rendle, KDD 2020)."
        )
    return notes


def _meaning(
    data: Interactions, outcomes: Sequence[Outcome], protocol: EvaluationProtocol, rmse_of_mean: float | None
) -> list[str]:
    """Say which measures mean nothing on this data, and which algorithms learnt nothing from it."""
    notes = [f"{outcome.label} failed, and has no measures: {outcome.failed}" for outcome in outcomes if outcome.failed]
    if data.all_equal:
        notes.append("All ratings are equal, so that errors of predicted ratings say nothing and are null.")
    why = why_not_ratings(data)
    predicting = [outcome.label for outcome in outcomes if outcome.candidate.kind == "rating"]
    if why is not None and predicting:
        notes.append(
            f"The data {why}: the lists of what learns from ratings ({', '.join(predicting)}) are little but noise."
        )
    too_long = [k for k in protocol.ks if k >= len(data.items)]
    if too_long:
        names = ", ".join(f"{family}@{k}" for k in too_long for family in ALL_SHOWN)
        notes.append(f"A list of {too_long[0]} holds all {len(data.items)} items, so that {names} say nothing: null.")
    for outcome in outcomes:
        error = mean([tally.value() for tally in outcome.by_user.get("rmse", ())])
        if error is not None and rmse_of_mean is not None and exceeds(error, rmse_of_mean):
            notes.append(
                f"{outcome.label} is worse than the mean rating alone: its RMSE is {format_measure(error)}, "
                f"and that of the mean {format_measure(rmse_of_mean)}."
            )
    return notes
