"""Comparisons of every two models on the same users.

Invariant: a difference is the first model's measure less the second's, and p values are corrected for all pairs of one
measure together.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Final

from service.training.evaluation import resampling
from service.training.evaluation.algorithm_result import AlgorithmResult, mean
from service.training.evaluation.measures.per_user import MeasureName
from service.training.evaluation.measures.prediction_error import RATING_MEASURES
from service.training.evaluation.resampling import ResamplingUnits
from service.training.interactions import Float64

_RANKING: Final = ("ndcg", "recall")


def paired_comparisons(
    units: ResamplingUnits,
    results: Sequence[AlgorithmResult],
    resampled: Sequence[Mapping[str, Float64]],
    ks: Sequence[int],
) -> list[dict[str, Any]]:
    """Compare every two models by every measure that both have, of the errors, NDCG and recall.

    Each model has its measures over draws of the units from `resampling.bootstrap`.

    Returns:
        `{"measure", "a", "b", "difference", "ci95", "p", "p_holm"}` for each pair, as plain JSON values.
    """
    names = [*RATING_MEASURES, *(str(MeasureName(family, k)) for family in _RANKING for k in ks)]
    columns = [(name, index) for name in names for index, result in enumerate(results) if name in result.by_user]
    sums, swaps = resampling.randomisation_sums(units, [results[index].by_user[name] for name, index in columns])
    comparisons: list[dict[str, Any]] = []
    for name in names:
        family: list[dict[str, Any]] = []
        p_values: list[float] = []
        of_measure = [(column, index) for column, (other, index) in enumerate(columns) if other == name]
        for (i, a), (j, b) in itertools.combinations(of_measure, 2):
            family.append(
                {
                    "measure": name,
                    "a": results[a].label,
                    "b": results[b].label,
                    "difference": _difference(results[a], results[b], name),
                    "ci95": resampling.percentile_interval95(resampled[a][name] - resampled[b][name]),
                }
            )
            p_values.append(resampling.p_value(float(sums[i] - sums[j]), swaps[:, i] - swaps[:, j]))
        corrected = resampling.holm(p_values)
        comparisons += [
            pair | {"p": p, "p_holm": p_holm} for pair, p, p_holm in zip(family, p_values, corrected, strict=True)
        ]
    return comparisons


def _difference(a: AlgorithmResult, b: AlgorithmResult, name: str) -> float | None:
    first, second = (mean([tally.value() for tally in result.by_user[name]]) for result in (a, b))
    return None if first is None or second is None else first - second
