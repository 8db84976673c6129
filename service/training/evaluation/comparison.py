"""Compares algorithms on the same splits, with the same seed for each fit and the same resampled users.

An algorithm that fails has a reason instead of measures, and does not end the comparison.

Invariants: models are judged by interactions that they did not learn from; predicted ratings are clipped to the rating
scale of the whole dataset, and lists are those that would be served. The popularity baseline is always in the result.
The result is a function of data, candidates and protocol, apart from seconds and bytes.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import numpy as np

from service.errors import RecollectError, UsageError
from service.training import hyperparameters
from service.training.algorithms.registry import ConfiguredAlgorithm
from service.training.evaluation import resampling
from service.training.evaluation.algorithm_result import NEED_SHORT_LISTS, AlgorithmResult, PreparedSplit, mean
from service.training.evaluation.evaluation_protocol import SPLIT_DESCRIPTIONS, TIME_SPLITS, EvaluationProtocol
from service.training.evaluation.kernel_compilation import compile_kernels
from service.training.evaluation.leakage import Leakage
from service.training.evaluation.measures import serving_cost
from service.training.evaluation.measures.prediction_error import exceeds, format_measure, rmse
from service.training.evaluation.paired_comparison import paired_comparisons
from service.training.evaluation.split_dataset import Split, SplitDataset
from service.training.interactions import Interactions, Progress, no_progress
from service.training.suitability import why_not_ratings

_BASELINE: Final = "popularity"


def compare(
    dataset: SplitDataset,
    candidates: Sequence[ConfiguredAlgorithm],
    protocol: EvaluationProtocol,
    *,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Measure algorithms on the same splits.

    Args:
        dataset: The data and its splits, see `split_dataset.read` and `split_dataset.split`.
        candidates: The algorithms, in the order of the result; the popularity baseline is added if it is missing.
        protocol: The protocol of the splits and of the measures.
        progress: Called for each split of each algorithm.

    Returns:
        `{"data", "protocol", "results", "comparisons", "leakage", "notes"}` as plain JSON values, as docs/evaluation.md
        describes them.

    Raises:
        UsageError: There is no algorithm or no relevant item, or the dataset cannot be split so.
    """
    if not candidates:
        raise UsageError("No algorithm is given to evaluate.")
    data = dataset.data
    results = _empty_results(candidates)
    leakage = Leakage(n_left_out=dataset.n_left_out)
    is_held_out = np.zeros(len(data.users), dtype=bool)
    n_judged, n_without = 0, 0
    mean_errors: list[float] = []
    n_steps, n_done = protocol.n_splits * len(results), 0
    for index, split in enumerate(dataset.splits()):
        # Only the first split shows that the dataset can be split, so that compiling is worth its time.
        if not index:
            for result in results:
                # An algorithm that cannot be fitted reports it when it is measured.
                with suppress(Exception):
                    compile_kernels(result.candidate, split.train)
            progress("evaluate", 0, n_steps)
        leakage.add(split.train, split.test)
        is_held_out[split.test.user_rows] = True
        prepared = PreparedSplit.of(split, protocol, index, has_errors=not data.all_equal)
        n_judged, n_without = n_judged + len(prepared.relevance), n_without + prepared.relevance.n_without
        mean_errors.append(_rmse_of_mean(split))
        for place, result in enumerate(results):
            results[place] = _measured(result, prepared)
            n_done += 1
            progress("evaluate", n_done, n_steps)
    seed = protocol.seeds().resampling
    units = resampling.ResamplingUnits.of(np.flatnonzero(is_held_out), is_held_out.size, seed)
    resampled = [resampling.bootstrap(units, result.by_user) for result in results]
    rmse_of_mean = None if data.all_equal else float(np.mean(mean_errors))
    return {
        "data": describe_dataset(data),
        "protocol": _describe_protocol(data, protocol, n_judged, n_without) | {"rmse_of_mean": rmse_of_mean},
        "results": [result.as_json(draws) for result, draws in zip(results, resampled, strict=True)],
        "comparisons": paired_comparisons(units, results, resampled, protocol.ks),
        "leakage": leakage.as_json() | {"in_history": {result.label: result.n_leaked for result in results}},
        "notes": [
            *_protocol_notes(dataset, leakage, results, protocol, n_judged, n_without),
            *_data_notes(data, results, protocol, rmse_of_mean),
        ],
    }


def _measured(result: AlgorithmResult, prepared: PreparedSplit) -> AlgorithmResult:
    """Return the result with the figures of one more split, or with a failure."""
    if result.failure is not None:
        return result
    try:
        result.measure(prepared)
    except RecollectError as error:
        return result.as_failed(str(error))
    except MemoryError:
        return result.as_failed("There is not enough memory for it.")
    # Hyperparameters and data can break a solver in its own way.
    except Exception as error:  # noqa: BLE001
        return result.as_failed(f"{type(error).__name__}: {error}")
    return result


def _rmse_of_mean(split: Split) -> float:
    """Return the error of predicting the mean training rating for every pair."""
    mean_rating = np.full(len(split.test), split.train.ratings.mean(dtype=np.float64))
    return rmse(mean_rating, split.test.ratings)


def describe_dataset(data: Interactions) -> dict[str, Any]:
    """Return the source, size and rating scale of a dataset, as plain JSON values."""
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


def _empty_results(candidates: Sequence[ConfiguredAlgorithm]) -> list[AlgorithmResult]:
    """Return a result without figures for each candidate and the baseline, with unique labels."""
    compared = list(candidates)
    if all(candidate.name != _BASELINE for candidate in compared):
        compared.append(ConfiguredAlgorithm.parse(_BASELINE))
    seen: Counter[str] = Counter()
    results = []
    for candidate in compared:
        label = candidate.label or _default_label(candidate, compared)
        seen[label] += 1
        results.append(AlgorithmResult(candidate, label if seen[label] == 1 else f"{label} ({seen[label]})"))
    return results


def _default_label(candidate: ConfiguredAlgorithm, among: Sequence[ConfiguredAlgorithm]) -> str:
    """Return a candidate's name, with the hyperparameters in which it differs from others of that name."""
    own = hyperparameters.as_json(candidate.config)
    others = [
        hyperparameters.as_json(other.config) for other in among if other.name == candidate.name and not other.label
    ]
    differing = [name for name, value in own.items() if any(other[name] != value for other in others)]
    return " ".join([candidate.name, *(f"{name}={_short(own[name])}" for name in differing)])


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).lower()


def _describe_protocol(
    data: Interactions, protocol: EvaluationProtocol, n_judged: int, n_without: int
) -> dict[str, Any]:
    """Return how everything was measured, as plain JSON values."""
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


def _protocol_notes(
    dataset: SplitDataset,
    leakage: Leakage,
    results: Sequence[AlgorithmResult],
    protocol: EvaluationProtocol,
    n_judged: int,
    n_without: int,
) -> list[str]:
    notes = [*dataset.notes, *leakage.notes()]
    notes += [
        f"The history of {result.label} holds {result.n_leaked} held-out pairs: its figures cannot be trusted."
        for result in results
        if result.n_leaked
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


def _data_notes(
    data: Interactions, results: Sequence[AlgorithmResult], protocol: EvaluationProtocol, rmse_of_mean: float | None
) -> list[str]:
    """Return which measures are meaningless on this data, and which algorithms failed or learnt nothing."""
    notes = [f"{result.label} failed and has no measures: {result.failure}" for result in results if result.failure]
    if data.all_equal:
        notes.append("All ratings are equal, so that errors of predicted ratings are meaningless and null.")
    why = why_not_ratings(data)
    predicting = [result.label for result in results if result.candidate.algorithm.kind == "rating"]
    if why is not None and predicting:
        notes.append(
            f"The data {why}: the lists of algorithms that learn from ratings ({', '.join(predicting)}) are mostly "
            "noise."
        )
    too_long = [k for k in protocol.ks if k >= len(data.items)]
    if too_long:
        names = ", ".join(f"{family}@{k}" for k in too_long for family in NEED_SHORT_LISTS)
        notes.append(f"A list of {too_long[0]} holds all {len(data.items)} items, so that {names} are null.")
    for result in results:
        error = mean([tally.value() for tally in result.by_user.get("rmse", ())])
        if error is not None and rmse_of_mean is not None and exceeds(error, rmse_of_mean):
            notes.append(
                f"{result.label} is worse than the mean rating alone: its RMSE is {format_measure(error)}, "
                f"and that of the mean {format_measure(rmse_of_mean)}."
            )
    return notes
