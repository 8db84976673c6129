"""The page of `recollect evaluate`: a comparison of models in tables and plots."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from ops.console.training_messages import dataset_size
from ops.pages import learning_curves, page, plots
from ops.pages.axis import Axis
from ops.pages.drawing import Drawing, Key
from ops.pages.page import Cell, Table
from ops.pages.plots import Estimate, Figure, Mark

_MEBIBYTE: Final = 1 << 20
_LOWER_IS_BETTER: Final = ("rmse", "mae", "gini", "popularity_bias")
# These describe lists; neither end is better.
_DESCRIPTIVE: Final = ("coverage", "novelty", "gini", "popularity_bias", "share_of_lists")
_SIGNIFICANT: Final = 0.05
_KINDS: Final = ("rating", "ranking")
_COSTS: Final[dict[str, tuple[str, float, str]]] = {
    "fit_s": ("fit, s", 1.0, ".2f"),
    "predict_s": ("predict, s", 1.0, ".3f"),
    "rank_s": ("rank, s", 1.0, ".2f"),
    "model_bytes": ("model, MiB", 1 / _MEBIBYTE, ".1f"),
    "peak_bytes": ("peak, MiB", 1 / _MEBIBYTE, ".0f"),
    "list_us": ("one list, µs", 1.0, ",.0f"),
    "pairwise_list_us": ("one list pair by pair, µs", 1.0, ",.0f"),
}
_LEAKAGE: Final = {
    "test_interactions": "held-out interactions",
    "on_both_sides": "held-out pairs also on the training side",
    "left_out": "held-out pairs left out for that reason",
    "repeated": "pairs held out twice",
    "cold_users": "users without training interactions",
    "cold_items": "items without training interactions",
    "of_cold_users": "share of held-out interactions of such users",
    "of_cold_items": "share of held-out interactions of such items",
    "older_than_own_training": "share older than the user's newest training interaction",
    "older_than_newest_training": "share older than the newest training interaction of all",
    "in_history": "held-out pairs in the model's history",
}


def render(comparison: dict[str, Any]) -> str:
    """Return the page of a value of `service.training.evaluation.comparison.compare`."""
    data, everything = comparison["data"], comparison["results"]
    results = [result for result in everything if not result.get("failed")]
    # "mrr" is a second name of one of the others, whose name has the length of its lists.
    measures = list(dict.fromkeys(name for result in results for name in result["measures"] if name != "mrr"))
    leakage = {_LEAKAGE.get(name, name): value for name, value in comparison["leakage"].items() if value is not None}
    return page.render(
        "evaluation.html.j2",
        title=f"Comparison of {len(everything)} models on {page.data_name(data['source'])}",
        headline=list(_headline(results, measures)),
        data=dataset_size(data),
        failures={_name(result): result["failed"] for result in everything if result.get("failed")},
        notes=_notes(comparison),
        lengths=[(k, _table(results, names), _intervals(results, names)) for k, names in _by_length(measures)],
        trade_offs=list(_trade_offs(results, measures)),
        costs=_costs(results),
        time_and_space=list(_time_and_space(results)),
        learning_curves=list(learning_curves.figures(results)),
        groups=list(_groups(results)),
        comparisons=list(_comparisons(comparison["comparisons"])),
        leakage=leakage,
        protocol=page.spaced_keys({name: value for name, value in comparison["protocol"].items() if name != "split"}),
        settings={_name(result): result["settings"] for result in everything},
    )


def _notes(comparison: dict[str, Any]) -> list[str]:
    """Return the notes without those on failed models, which have a section of their own."""
    failed = tuple(f"{_name(result)} failed," for result in comparison["results"] if result.get("failed"))
    return [note for note in comparison["notes"] if not (failed and note.startswith(failed))]


def _headline(results: Sequence[dict[str, Any]], measures: Sequence[str]) -> Iterator[str]:
    """Yield sentences on the best predictor and the best ranker."""
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


def _by_length(measures: Sequence[str]) -> list[tuple[int, list[str]]]:
    """Return the measures by length of lists; those without one are in the first group."""
    lengths: dict[int, list[str]] = {}
    for name in measures:
        _, _, k = name.partition("@")
        lengths.setdefault(int(k or 0), []).append(name)
    without = lengths.pop(0, [])
    groups = sorted(lengths.items())
    return [(groups[0][0], without + groups[0][1]), *groups[1:]] if groups else [(0, without)]


def _table(results: Sequence[dict[str, Any]], measures: Sequence[str]) -> Table:
    best = {name: _best(results, name) for name in measures if not _is_descriptive(name)}
    rows: list[list[str | Cell]] = []
    for result in results:
        row: list[str | Cell] = [_name(result)]
        for name in measures:
            mean, half = _mean(result, name), _half(result, name)
            small = "" if half is None else f"±{half:.4f}"
            row.append("" if mean is None else Cell(f"{mean:.4f}", small, "best" if best.get(name) is result else ""))
        rows.append(row)
    return Table(["model", *(f"{name}{_arrow(name)}" for name in measures)], rows)


def _costs(results: Sequence[dict[str, Any]]) -> Table:
    rows = []
    for result in results:
        figures = [
            "" if result.get(key) is None else format(result[key] * scale, shape)
            for key, (_, scale, shape) in _COSTS.items()
        ]
        rows.append([_name(result), *figures])
    return Table(["model", *(heading for heading, _, _ in _COSTS.values())], rows)


def _intervals(results: Sequence[dict[str, Any]], measures: Sequence[str]) -> list[Figure]:
    return [_interval(known, name) for name in measures if (known := _known(results, name))]


def _interval(results: Sequence[dict[str, Any]], name: str) -> Figure:
    rows = []
    for result in results:
        mean, interval = result["measures"][name]["mean"], result["measures"][name]["ci95"]
        ends = None if interval is None else (float(interval[0]), float(interval[1]))
        text = "" if ends is None else f", 95 % interval {ends[0]:.4f} to {ends[1]:.4f}"
        rows.append((_name(result), [Estimate(mean, f"{_name(result)}: {name} {mean:.4f}{text}", ends)]))
    return Figure(name, _dots(f"{name} by model", rows, better=_direction(name)))


def _dots(
    name: str, rows: Sequence[tuple[str, Sequence[Estimate]]], label: str = "", *, better: str, log: bool = False
) -> Drawing:
    values = [value for _, estimates in rows for one in estimates for value in (one.value, *(one.interval or ()))]
    return plots.dot_plot(name, Axis.over(values, label, log=log), rows, better=better)


def _trade_offs(results: Sequence[dict[str, Any]], measures: Sequence[str]) -> Iterator[Figure]:
    """Yield error against ranking quality, and catalogue coverage against ranking quality."""
    ranking = next((name for name in measures if name.startswith("ndcg@")), None)
    coverage = next((name for name in measures if name.startswith("coverage@")), None)
    for x, y, title, better, caption in (
        ("rmse", ranking, "Predicting and ranking", "↖ better", "Models that only rank have no rmse."),
        (coverage, ranking, "Variety and ranking", "↑ better", "Further right, lists show more of the catalogue."),
    ):
        if x is None or y is None:
            continue
        points = [(result, _mean(result, x), _mean(result, y)) for result in results]
        both = [(result, left, up) for result, left, up in points if left is not None and up is not None]
        if len(both) > 1:
            yield Figure(title, _against(x, y, both, better=better), caption, _kinds(both))


def _time_and_space(results: Sequence[dict[str, Any]]) -> Iterator[Figure]:
    for key, of, caption in (
        ("model_bytes", "model", "The memory that a replica maps."),
        ("peak_bytes", "peak memory", "The whole process while fitting and predicting, data included."),
    ):
        seconds = [(result, result["fit_s"] + (result["predict_s"] or 0.0)) for result in results]
        points = [(result, result[key] / _MEBIBYTE, took_s) for result, took_s in seconds if result[key] and took_s > 0]
        if points:
            plot = _against(f"{of}, MiB", "fit and predict, s", points, log=True, better="↙ better")
            yield Figure(f"Seconds against {of}", plot, caption, _kinds(points))
    timed = [result for result in results if result.get("list_us") and result.get("pairwise_list_us")]
    if timed:
        yield _look_up(timed)


def _look_up(results: Sequence[dict[str, Any]]) -> Figure:
    """Return the time of a list from precomputed tables, and pair by pair."""
    rows = []
    for result in results:
        fast, slow = result["list_us"], result["pairwise_list_us"]
        times = f"{slow / fast:,.0f} times the look-up"
        rows.append(
            (
                _name(result),
                [
                    Estimate(fast, f"{_name(result)}: a list by look-up, {fast:,.0f} µs"),
                    Estimate(slow, f"{_name(result)}: pair by pair, {slow:,.0f} µs, {times}", series=1),
                ],
            )
        )
    ratios = [result["pairwise_list_us"] / result["list_us"] for result in results]
    many = f"{min(ratios):,.0f} to {max(ratios):,.0f} times" if len(ratios) > 1 else f"{ratios[0]:,.0f} times"
    return Figure(
        "Look-up against prediction pair by pair",
        _dots("microseconds for a list", rows, "one list, µs", better="← better", log=True),
        f"Pair by pair takes {many} as long, extrapolated from a sample of pairs.",
        [plots.key("from the tables", 0), plots.key("every pair predicted on its own", 1)],
    )


def _against(
    x_label: str, y_label: str, points: Sequence[tuple[dict[str, Any], float, float]], *, better: str, log: bool = False
) -> Drawing:
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
    return plots.scatter_plot(f"{y_label} against {x_label}", across, up, marks, better=better)


def _kinds(points: Sequence[tuple[dict[str, Any], float, float]]) -> list[Key]:
    """Return the legend of the two kinds of models; empty if there is one kind."""
    kinds = {result["kind"] for result, _, _ in points}
    return [plots.key("predicts ratings", 0), plots.key("ranks only", 1)] if len(kinds) > 1 else []


def _groups(results: Sequence[dict[str, Any]]) -> Iterator[Figure]:
    """Yield a plot for each measure of groups of users or of items."""
    for side in ("users", "items"):
        grouped = [result for result in results if (result.get("groups") or {}).get(side)]
        if not grouped:
            continue
        names = list(grouped[0]["groups"][side])
        legend = [plots.key(_sized(grouped, side, group), series) for series, group in enumerate(names)]
        measures = dict.fromkeys(
            name for result in grouped for group in result["groups"][side].values() for name in group if name != "n"
        )
        for measure in measures:
            rows = []
            for result in grouped:
                values = [(group, result["groups"][side].get(group, {}).get(measure)) for group in names]
                estimates = [
                    Estimate(value, f"{_name(result)}, {group} {side}: {measure} {value:.4f}", series=series)
                    for series, (group, value) in enumerate(values)
                    if value is not None
                ]
                if estimates:
                    rows.append((_name(result), estimates))
            if rows:
                plot = _dots(f"{measure} by group of {side}", rows, better=_direction(measure))
                yield Figure(f"{measure}, {side}", plot, legend=legend)


def _sized(results: Sequence[dict[str, Any]], side: str, group: str) -> str:
    n = results[0]["groups"][side][group].get("n")
    return group if n is None else f"{group} ({n:,})"


def _comparisons(comparisons: Sequence[dict[str, Any]]) -> Iterator[tuple[str, Table]]:
    """Yield each measure with the table of its pairs."""
    for measure in dict.fromkeys(pair["measure"] for pair in comparisons):
        rows = []
        for pair in comparisons:
            if pair["measure"] != measure:
                continue
            is_significant = pair["p_holm"] is not None and pair["p_holm"] < _SIGNIFICANT
            interval = "" if pair["ci95"] is None else "{:+.4f} to {:+.4f}".format(*pair["ci95"])
            difference = "" if pair["difference"] is None else f"{pair['difference']:+.4f}"
            rows.append(
                [
                    pair["a"],
                    pair["b"],
                    Cell(difference, kind="significant" if is_significant else ""),
                    interval,
                    _p(pair["p"]),
                    _p(pair["p_holm"]),
                ]
            )
        heading = ["first", "second", "difference", "95 % interval", "p", "p, corrected"]
        yield measure, Table(heading, rows, left=(0, 1))


def _p(value: float | None) -> str:
    if value is None:
        return ""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _name(result: dict[str, Any]) -> str:
    """Return the label of a result; one algorithm may have several results, with different settings."""
    return str(result.get("label", result["algorithm"]))


def _is_descriptive(measure: str) -> bool:
    return measure.partition("@")[0] in _DESCRIPTIVE


def _direction(measure: str) -> str:
    """Return the better direction on a plot."""
    if _is_descriptive(measure):
        return "neither end is better"
    return "← better" if _is_lower_better(measure) else "better →"


def _arrow(measure: str) -> str:
    """Return the better direction in a heading."""
    return "" if _is_descriptive(measure) else (" ↓" if _is_lower_better(measure) else " ↑")


def _is_lower_better(measure: str) -> bool:
    return measure.partition("@")[0] in _LOWER_IS_BETTER


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
