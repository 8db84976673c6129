"""A comparison of algorithms as one HTML page: what `recollect evaluate` found, in tables and plots."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from ops.console.dataset_size import dataset_size
from ops.pages import plots, sheet
from ops.pages.axis import Axis
from ops.pages.plots import Key, Mark, Reach
from ops.pages.sheet import Cell

_MEBIBYTE: Final = 1 << 20
_ERRORS: Final = ("rmse", "mae")
_LOWER_IS_BETTER: Final = (*_ERRORS, "gini", "popularity_bias")
# Neither end of these is better as such: they describe lists.
_DESCRIBES: Final = ("coverage", "novelty", "gini", "popularity_bias", "share_of_lists")
_SIGNIFICANT: Final = 0.05
_KINDS: Final = ("rating", "ranking")
_COSTS: Final[dict[str, tuple[str, float, str]]] = {
    "fit_s": ("fit, s", 1.0, ".2f"),
    "predict_s": ("predict, s", 1.0, ".3f"),
    "rank_s": ("rank, s", 1.0, ".2f"),
    "model_bytes": ("model, MiB", 1 / _MEBIBYTE, ".1f"),
    "peak_bytes": ("peak, MiB", 1 / _MEBIBYTE, ".0f"),
    "list_us": ("a list, µs", 1.0, ",.0f"),
    "pairwise_list_us": ("pair by pair, µs", 1.0, ",.0f"),
}


def write(path: Path, comparison: dict[str, Any]) -> None:
    """Write the page.

    Args:
        path: where.
        comparison: What `service.training.evaluation.comparison.compare` returned.

    Raises:
        UsageError: It cannot be written there.
    """
    sheet.write(path, render(comparison))


def render(comparison: dict[str, Any]) -> str:
    """Return the page of what `service.training.evaluation.comparison.compare` returned."""
    data, protocol, everything = comparison["data"], comparison["protocol"], comparison["results"]
    results = [result for result in everything if not result.get("failed")]
    # "mrr" is another name of one of the others, which says the length of its lists.
    measures = list(dict.fromkeys(name for result in results for name in result["measures"] if name != "mrr"))
    first, others = _by_length(measures)
    body = [
        *(sheet.paragraph(sentence) for sentence in _headline(results, measures)),
        sheet.paragraph(
            f"{dataset_size(data)}; split: {protocol['split_in_words']}; seed {protocol['seed']}.",
            soft=True,
        ),
        sheet.section("What failed", [sheet.named({_name(r): r["failed"] for r in everything if r.get("failed")})]),
        sheet.section("Notes", [sheet.listed(_notes(comparison))]),
        sheet.section(
            "Measures",
            [_table(results, first), *(sheet.folded(f"Lists of {k}", _table(results, names)) for k, names in others)],
            about="Mean and half of its 95 % interval; the best of each column is marked. ↓ less is better, ↑ more is "
            "better; the others describe lists, and neither end of them is better.",
        ),
        sheet.section(
            "Intervals",
            [
                _intervals(results, first),
                *(sheet.folded(f"Lists of {k}", _intervals(results, names)) for k, names in others),
            ],
            about="Means with their 95 % intervals. Where intervals overlap, the paired comparisons below say more.",
        ),
        sheet.section("Accuracy and ranking", [sheet.plots(_trades(results, measures))]),
        sheet.section("Time and space", [_costs(results), sheet.plots(_time_and_space(results))]),
        sheet.section("By group", [sheet.plots(_groups(results))], about=_ABOUT_GROUPS),
        sheet.section("Every two models", _comparisons(comparison["comparisons"]), about=_ABOUT_COMPARISONS),
        sheet.section("Leakage and cold starts", [sheet.named(sheet.in_words(comparison["leakage"]))]),
        sheet.section("How it was measured", [sheet.named(_said(protocol))]),
        sheet.section(
            "Settings", [sheet.named({_name(result): result["settings"] or "none" for result in everything})]
        ),
    ]
    return sheet.page(f"Comparison of {len(everything)} models on {sheet.data_name(data['source'])}", body)


_ABOUT_GROUPS: Final = (
    "Users by the number of their training interactions, items by their share of all training interactions; the groups "
    "are those of the training side."
)
_ABOUT_COMPARISONS: Final = (
    "The first less the second, on the same users; in bold where p, corrected for all pairs of the measure, is below "
    "0.05."
)


def _notes(comparison: dict[str, Any]) -> list[str]:
    """Return the notes but for those on what failed, which has a section of its own."""
    failed = tuple(f"{_name(result)} failed," for result in comparison["results"] if result.get("failed"))
    return [note for note in comparison["notes"] if not (failed and note.startswith(failed))]


def _headline(results: Sequence[dict[str, Any]], measures: Sequence[str]) -> Iterator[str]:
    """Yield who predicts best, who ranks best, and that these are two where they are."""
    predictor, ranker = _best(results, "rmse"), None
    ranking = next((name for name in measures if name.startswith("ndcg@")), None)
    if ranking is not None:
        ranker = _best(results, ranking)
    if predictor is not None:
        yield f"The lowest rmse is {_mean(predictor, 'rmse'):.4f}, of {_name(predictor)}."
    if ranker is not None and ranking is not None:
        yield f"The highest {ranking} is {_mean(ranker, ranking):.4f}, of {_name(ranker)}."
    if predictor is not None and ranker is not None and predictor is not ranker:
        yield "The model that predicts ratings best is not the one that ranks best."


def _by_length(measures: Sequence[str]) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the measures without a length of lists or with the least one, and the others by their length."""
    lengths: dict[int, list[str]] = {}
    for name in measures:
        _, _, k = name.partition("@")
        lengths.setdefault(int(k or 0), []).append(name)
    first = lengths.pop(0, [])
    others = sorted(lengths.items())
    return (first + others[0][1], others[1:]) if others else (first, [])


def _table(results: Sequence[dict[str, Any]], measures: Sequence[str]) -> str:
    best = {name: _best(results, name) for name in measures if _family(name) not in _DESCRIBES}
    rows: list[list[str | Cell]] = []
    for result in results:
        row: list[str | Cell] = [_name(result)]
        for name in measures:
            mean, half = _mean(result, name), _half(result, name)
            small = "" if half is None else f"±{half:.4f}"
            row.append("" if mean is None else Cell(f"{mean:.4f}", small, "best" if best.get(name) is result else ""))
        rows.append(row)
    return sheet.table(["model", *(f"{name}{_arrow(name)}" for name in measures)], rows)


def _costs(results: Sequence[dict[str, Any]]) -> str:
    rows = []
    for result in results:
        figures = [
            "" if result.get(key) is None else format(result[key] * scale, shape)
            for key, (_, scale, shape) in _COSTS.items()
        ]
        rows.append([_name(result), *figures])
    return sheet.table(["model", *(heading for heading, _, _ in _COSTS.values())], rows)


def _intervals(results: Sequence[dict[str, Any]], measures: Sequence[str]) -> str:
    return sheet.plots(_interval(results, name) for name in measures if _known(results, name))


def _interval(results: Sequence[dict[str, Any]], name: str) -> str:
    known = _known(results, name)
    rows = []
    for result in known:
        mean, interval = result["measures"][name]["mean"], result["measures"][name]["ci95"]
        ends = None if interval is None else (float(interval[0]), float(interval[1]))
        said = "" if ends is None else f", 95 % interval {ends[0]:.4f} to {ends[1]:.4f}"
        rows.append((_name(result), [Reach(mean, f"{_name(result)}: {name} {mean:.4f}{said}", ends)]))
    reached = [value for _, (reach,) in rows for value in (reach.value, *(reach.interval or ()))]
    plot = plots.rows(f"{name} by model", Axis.over(reached, ""), rows, better=_direction(name))
    return sheet.figure(name, plot)


def _trades(results: Sequence[dict[str, Any]], measures: Sequence[str]) -> Iterator[str]:
    """Yield how well models predict against how well they rank, and what good ranking costs in variety."""
    ranking = next((name for name in measures if name.startswith("ndcg@")), None)
    coverage = next((name for name in measures if name.startswith("coverage@")), None)
    for x, y, title, better, about in (
        ("rmse", ranking, "Predicting and ranking", "↖ better", "Models that only rank have no rmse."),
        (coverage, ranking, "Variety and ranking", "↑ better", "Further right more of the catalogue is shown."),
    ):
        if x is None or y is None:
            continue
        points = [(result, _mean(result, x), _mean(result, y)) for result in results]
        both = [(result, left, up) for result, left, up in points if left is not None and up is not None]
        if len(both) > 1:
            yield sheet.figure(title, _against(x, y, both, better=better), keys=_kinds(both), about=about)


def _time_and_space(results: Sequence[dict[str, Any]]) -> Iterator[str]:
    for key, of, about in (
        ("model_bytes", "model", "What a replica maps."),
        ("peak_bytes", "peak memory", "The whole process while fitting and predicting, data included."),
    ):
        seconds = [(result, result["fit_s"] + (result["predict_s"] or 0.0)) for result in results]
        points = [(result, result[key] / _MEBIBYTE, took_s) for result, took_s in seconds if result[key] and took_s > 0]
        if points:
            plot = _against(f"{of}, MiB", "fit and predict, s", points, log=True, better="↙ better")
            yield sheet.figure(f"Seconds against {of}", plot, keys=_kinds(points), about=about)
    asked = [result for result in results if result.get("list_us") and result.get("pairwise_list_us")]
    if asked:
        yield _look_up(asked)


def _look_up(results: Sequence[dict[str, Any]]) -> str:
    rows = []
    for result in results:
        fast, slow = result["list_us"], result["pairwise_list_us"]
        times = f"{slow / fast:,.0f} times the look-up"
        rows.append(
            (
                _name(result),
                [
                    Reach(fast, f"{_name(result)}: a list by look-up, {fast:,.0f} µs"),
                    Reach(slow, f"{_name(result)}: pair by pair, {slow:,.0f} µs, {times}", series=1),
                ],
            )
        )
    reached = [reach.value for _, reaches in rows for reach in reaches]
    ratios = [result["pairwise_list_us"] / result["list_us"] for result in results]
    many = f"{min(ratios):,.0f} to {max(ratios):,.0f} times" if len(ratios) > 1 else f"{ratios[0]:,.0f} times"
    return sheet.figure(
        "What a look-up saves",
        plots.rows("microseconds for a list", Axis.over(reached, "one list, µs", log=True), rows, better="← better"),
        keys=plots.legend([Key("from the tables", 0), Key("every pair predicted on its own", 1)]),
        about=f"Pair by pair takes {many} as long, extrapolated from a sample of pairs.",
    )


def _against(
    x_label: str, y_label: str, points: Sequence[tuple[dict[str, Any], float, float]], *, better: str, log: bool = False
) -> str:
    marks = [
        Mark(
            x,
            y,
            f"{_name(result)}: {x_label} {x:.4g}, {y_label} {y:.4g}",
            series=_KINDS.index(result["kind"]),
            label=_name(result),
        )
        for result, x, y in points
    ]
    across = Axis.over([x for _, x, _ in points], x_label, log=log)
    up = Axis.over([y for _, _, y in points], y_label, log=log)
    return plots.scatter(f"{y_label} against {x_label}", across, up, marks, better=better)


def _kinds(points: Sequence[tuple[dict[str, Any], float, float]]) -> str:
    """Return what the two kinds of marks mean, where there are two."""
    kinds = {result["kind"] for result, _, _ in points}
    return plots.legend([Key("predicts ratings", 0), Key("ranks only", 1)]) if len(kinds) > 1 else ""


def _groups(results: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield a plot for each measure that groups of users or of items have."""
    for side in ("users", "items"):
        grouped = [result for result in results if (result.get("groups") or {}).get(side)]
        if not grouped:
            continue
        names = list(grouped[0]["groups"][side])
        keys = plots.legend([Key(_sized(grouped, side, group), series) for series, group in enumerate(names)])
        measures = dict.fromkeys(
            name for result in grouped for group in result["groups"][side].values() for name in group if name != "n"
        )
        for measure in measures:
            rows = []
            for result in grouped:
                values = [(group, result["groups"][side].get(group, {}).get(measure)) for group in names]
                reaches = [
                    Reach(value, f"{_name(result)}, {group} {side}: {measure} {value:.4f}", series=series)
                    for series, (group, value) in enumerate(values)
                    if value is not None
                ]
                if reaches:
                    rows.append((_name(result), reaches))
            if rows:
                reached = [reach.value for _, reaches in rows for reach in reaches]
                title, axis = f"{measure} by group of {side}", Axis.over(reached, "")
                plot = plots.rows(title, axis, rows, better=_direction(measure))
                yield sheet.figure(f"{measure}, {side}", plot, keys=keys)


def _sized(results: Sequence[dict[str, Any]], side: str, group: str) -> str:
    n = results[0]["groups"][side][group].get("n")
    return group if n is None else f"{group} ({n:,})"


def _comparisons(comparisons: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield a table for each measure, folded away but for the first."""
    for place, measure in enumerate(dict.fromkeys(pair["measure"] for pair in comparisons)):
        rows = []
        for pair in comparisons:
            if pair["measure"] != measure:
                continue
            is_sure = pair["p_holm"] is not None and pair["p_holm"] < _SIGNIFICANT
            interval = "" if pair["ci95"] is None else "{:+.4f} to {:+.4f}".format(*pair["ci95"])
            difference = "" if pair["difference"] is None else f"{pair['difference']:+.4f}"
            rows.append(
                [
                    pair["a"],
                    pair["b"],
                    Cell(difference, kind="sure" if is_sure else ""),
                    interval,
                    _p(pair["p"]),
                    _p(pair["p_holm"]),
                ]
            )
        heading = ["first", "second", "difference", "95 % interval", "p", "p, corrected"]
        yield sheet.folded(measure, sheet.table(heading, rows, left=(0, 1)), is_open=place == 0)


def _p(value: float | None) -> str:
    if value is None:
        return ""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _said(protocol: dict[str, Any]) -> dict[str, Any]:
    """Return the protocol in words, which tell the split too."""
    return sheet.in_words({name: value for name, value in protocol.items() if name != "split"})


def _name(result: dict[str, Any]) -> str:
    """Return what tells a result from the others: an algorithm may be there with several settings."""
    return str(result.get("label", result["algorithm"]))


def _family(measure: str) -> str:
    return measure.partition("@")[0]


def _describes(measure: str) -> bool:
    return _family(measure) in _DESCRIBES


def _direction(measure: str) -> str:
    """Say on a plot which way is better."""
    if _describes(measure):
        return "neither end is better"
    return "← better" if _is_lower_better(measure) else "better →"


def _arrow(measure: str) -> str:
    """Say in a heading which way is better."""
    return "" if _describes(measure) else (" ↓" if _is_lower_better(measure) else " ↑")


def _is_lower_better(measure: str) -> bool:
    return _family(measure) in _LOWER_IS_BETTER


def _mean(result: dict[str, Any], measure: str) -> float | None:
    mean: float | None = result["measures"].get(measure, {}).get("mean")
    return mean


def _half(result: dict[str, Any], measure: str) -> float | None:
    interval = result["measures"].get(measure, {}).get("ci95")
    return None if interval is None else float(interval[1] - interval[0]) / 2


def _known(results: Sequence[dict[str, Any]], measure: str) -> list[dict[str, Any]]:
    return [result for result in results if _mean(result, measure) is not None]


def _best(results: Sequence[dict[str, Any]], measure: str) -> dict[str, Any] | None:
    known = _known(results, measure)
    sign = 1.0 if _is_lower_better(measure) else -1.0
    return min(known, key=lambda result: sign * (_mean(result, measure) or 0.0), default=None)
