"""Every two models of a comparison against each other, on the same users.

Invariant: the difference of two models is always the first's less the second's, and p values are corrected for all
pairs of one measure together.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Final

from service.training.evaluation import resampling
from service.training.evaluation.algorithm_result import Outcome, mean
from service.training.evaluation.measures.per_user import MeasureName
from service.training.evaluation.measures.prediction_error import RATING_MEASURES
from service.training.evaluation.resampling import Float64, ResamplingUnits

_RANKING: Final = ("ndcg", "recall")


def comparisons(
    units: ResamplingUnits, outcomes: Sequence[Outcome], resampled: Sequence[Mapping[str, Float64]], ks: Sequence[int]
) -> list[dict[str, Any]]:
    """Compare every two models by every measure that both have, of the errors, NDCG and recall.

    Args:
        units: Whom the bootstrap draws.
        outcomes: The models.
        resampled: Each model's measures over the draws, see `resampling.resampled`.
        ks: Lengths of lists.

    Returns:
        `{"measure", "a", "b", "difference", "ci95", "p", "p_holm"}` for each pair, as plain JSON values.
    """
    names = [*RATING_MEASURES, *(str(MeasureName(family, k)) for family in _RANKING for k in ks)]
    columns = [(name, index) for name in names for index, outcome in enumerate(outcomes) if name in outcome.by_user]
    totals, swaps = resampling.randomise(units, [outcomes[index].by_user[name] for name, index in columns])
    result: list[dict[str, Any]] = []
    for name in names:
        family: list[dict[str, Any]] = []
        p_values: list[float] = []
        mine = [(column, index) for column, (other, index) in enumerate(columns) if other == name]
        for (i, a), (j, b) in itertools.combinations(mine, 2):
            family.append(
                {
                    "measure": name,
                    "a": outcomes[a].label,
                    "b": outcomes[b].label,
                    "difference": _difference(outcomes[a], outcomes[b], name),
                    "ci95": resampling.percentile_interval95(resampled[a][name] - resampled[b][name]),
                }
            )
            p_values.append(resampling.p_value(float(totals[i] - totals[j]), swaps[:, i] - swaps[:, j]))
        corrected = resampling.holm(p_values)
        result += [
            pair | {"p": p, "p_holm": p_holm} for pair, p, p_holm in zip(family, p_values, corrected, strict=True)
        ]
    return result


def _difference(a: Outcome, b: Outcome, name: str) -> float | None:
    mine, other = (mean([tally.value() for tally in outcome.by_user[name]]) for outcome in (a, b))
    return None if mine is None or other is None else mine - other
