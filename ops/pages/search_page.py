"""A hyper-parameter search as one HTML page: the best trials, how it went, which settings mattered, each in a plot."""

from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

from ops.console.dataset_size import dataset_size
from ops.pages import plots, sheet
from ops.pages.axis import Axis
from ops.pages.sheet import Cell

_SHOWN: Final = 15
_ABOUT_TABLE: Final = (
    "Mean over the folds with its 95 % interval. The best of many trials on the same folds is somewhat better there "
    "than it will be elsewhere; measure it on other folds before you rely on the last digit."
)
_STATES: Final = ("complete", "pruned")
# Values that lie so far apart are drawn on a logarithmic scale.
_WIDE: Final = 20
# An axis that one bad trial stretches shows nothing of the others; what lies beyond is drawn at its end.
_KEPT_SHARE: Final = 0.8


def write(path: Path, found: dict[str, Any]) -> None:
    """Write the page.

    Args:
        path: where.
        found: What `service.training.search.search_run.search` returned.

    Raises:
        UsageError: It cannot be written there.
    """
    sheet.write(path, render(found))


def render(found: dict[str, Any]) -> str:
    """Return the page of what `service.training.search.search_run.search` returned."""
    data, protocol = found["data"], found["protocol"]
    body = [
        sheet.paragraph(_headline(found)),
        sheet.paragraph(
            f"{dataset_size(data)}; {protocol['split_in_words']}; seed {protocol['seed']}; {_counted(found)}.",
            soft=True,
        ),
        sheet.section("The best trials", [_table(found)], about=_ABOUT_TABLE),
        sheet.section("How it went", [sheet.plots([_history(found), *_importance(found)])]),
        sheet.section(
            "Each setting",
            [sheet.plots(_slice(found, name) for name in found["space"])],
            about="Every trial against one setting at a time; the other settings differ between the points.",
        ),
        sheet.section("What failed", [sheet.listed(_failures(found))]),
        sheet.section("How it was measured", [sheet.named(_said(found))]),
    ]
    return sheet.page(f"Search for the settings of {found['algorithm']} on {sheet.data_name(data['source'])}", body)


def _headline(found: dict[str, Any]) -> str:
    measure, best, defaults = found["protocol"]["measure"], found["best"], found["defaults"]
    reached = f"The best {measure} is {best['mean']:.4f}, of trial {best['trial']}"
    against = best["against_defaults"]
    if against is None:
        return f"{reached}."
    interval = "" if against["ci95"] is None else " (95 % interval {:+.4f} to {:+.4f})".format(*against["ci95"])
    return (
        f"{reached}; the settings it began with reach {defaults['mean']:.4f}. The difference is "
        f"{against['difference']:+.4f}{interval} on the same folds."
    )


def _counted(found: dict[str, Any]) -> str:
    states = [trial["state"] for trial in found["trials"]]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    ended = " until it was interrupted" if found["is_interrupted"] else ""
    return f"{len(states)} trials ({counts}) by {found['protocol']['method']} in {found['seconds']:.0f} s{ended}"


def _table(found: dict[str, Any]) -> str:
    searched = list(found["space"])
    by_number = {trial["trial"]: trial for trial in found["trials"]}
    rows = [
        _row(str(number), by_number[number], searched, is_best=place == 0)
        for place, number in enumerate(found["ranked"][:_SHOWN])
    ]
    if found["defaults"]["mean"] is not None:
        rows.append(_row("defaults", found["defaults"], searched))
    measure = f"{found['protocol']['measure']} {'↓' if _lower_is_better(found) else '↑'}"
    return sheet.table(["trial", measure, "seconds", *searched], rows)


def _row(name: str, trial: dict[str, Any], searched: list[str], *, is_best: bool = False) -> list[str | Cell]:
    half = "" if trial["ci95"] is None else f"±{(trial['ci95'][1] - trial['ci95'][0]) / 2:.4f}"
    values = [setting_text(trial["settings"][setting]) for setting in searched]
    return [name, Cell(f"{trial['mean']:.4f}", half, "best" if is_best else ""), f"{trial['seconds']:.1f}", *values]


def _history(found: dict[str, Any]) -> str:
    measured = _measured(found)
    axis = _measure_axis(found)
    better = min if _lower_is_better(found) else max
    complete = [trial for trial in measured if trial["state"] == "complete"]
    best = list(accumulate((trial["mean"] for trial in complete), better))
    line: list[tuple[float, float]] = []
    for trial, value in zip(complete, best, strict=True):
        if line:
            line.append((trial["trial"], line[-1][1]))
        line.append((trial["trial"], _within(axis, value)))
    if line:
        line.append((measured[-1]["trial"], line[-1][1]))
    across = Axis.over([trial["trial"] for trial in measured], "trial")
    plot = plots.scatter(
        "trials in their order", across, axis, list(_marks(found, axis, None)), line, better=_direction(found)
    )
    return sheet.figure(
        "Trial by trial", plot, about=f"The line is the best so far. {_beyond(found)}", keys=_keys(found)
    )


def _importance(found: dict[str, Any]) -> Iterator[str]:
    bars = [(name, 100 * share, f"{share:.0%}") for name, share in found["importance"].items()]
    if bars:
        axis = Axis.over((value for _, value, _ in bars), "share of importance, %", from_zero=True)
        plot = plots.bars("importance of settings", axis, bars, better="mattered more →")
        about = "PED-ANOVA over the complete trials (Watanabe et al., 2023)."
        yield sheet.figure("Which settings mattered", plot, about=about)


def _slice(found: dict[str, Any], name: str) -> str:
    space, measure = found["space"][name], found["protocol"]["measure"]
    names = _names(space)
    if names is not None:
        across = Axis.named(names, name)
    elif "values" in space:
        values = space["values"]
        across = Axis.over(values, name, log=min(values) > 0 and max(values) / min(values) >= _WIDE)
    else:
        across = Axis.over((space["low"], space["high"]), name, log=space["log"])
    axis = _measure_axis(found)
    plot = plots.scatter(
        f"{measure} against {name}", across, axis, list(_marks(found, axis, name)), better=_direction(found)
    )
    return sheet.figure(name, plot)


def _marks(found: dict[str, Any], axis: Axis, setting: str | None) -> Iterator[plots.Mark]:
    """Yield a mark for each trial with a value, against one setting or in their order."""
    measure = found["protocol"]["measure"]
    names = _names(found["space"][setting]) if setting is not None else None
    for trial in _measured(found):
        value = trial["trial"] if setting is None else trial["settings"][setting]
        x = float(value if names is None else names.index(setting_text(value)))
        settings = ", ".join(f"{name} {setting_text(value)}" for name, value in trial["settings"].items())
        text = f"trial {trial['trial']}, {trial['state']}: {measure} {trial['mean']:.4f}; {settings}"
        series = 1 if trial["trial"] == found["best"]["trial"] else 0
        yield plots.Mark(x, _within(axis, trial["mean"]), text, series, is_hollow=trial["state"] != "complete")


def _names(space: dict[str, Any]) -> list[str] | None:
    """Return the values of a setting as names, where they are no numbers to draw to scale; else None."""
    values = space.get("values")
    if values is None:
        return None
    is_scale = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    return None if is_scale and len(values) > 1 else [setting_text(value) for value in values]


def _keys(found: dict[str, Any]) -> str:
    is_any_pruned = any(trial["state"] == "pruned" for trial in _measured(found))
    pruned = [plots.Key("pruned", 0, is_hollow=True)] if is_any_pruned else []
    return plots.legend([plots.Key("complete", 0), *pruned, plots.Key(f"the best, trial {found['best']['trial']}", 1)])


def _measured(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [trial for trial in found["trials"] if trial["mean"] is not None and trial["state"] in _STATES]


def _measure_axis(found: dict[str, Any]) -> Axis:
    values = sorted(trial["mean"] for trial in _measured(found))
    if not _lower_is_better(found):
        values.reverse()
    kept = values[: max(2, round(_KEPT_SHARE * len(values)))]
    return Axis.over(kept, found["protocol"]["measure"])


def _within(axis: Axis, value: float) -> float:
    return min(max(value, axis.low), axis.high)


def _beyond(found: dict[str, Any]) -> str:
    axis = _measure_axis(found)
    n = sum(not axis.low <= trial["mean"] <= axis.high for trial in _measured(found))
    return f"{n} of the worst trials lie beyond the edge and are drawn on it." if n else ""


def _lower_is_better(found: dict[str, Any]) -> bool:
    return bool(found["protocol"]["direction"] == "minimize")


def _direction(found: dict[str, Any]) -> str:
    return "↓ better" if _lower_is_better(found) else "↑ better"


def _failures(found: dict[str, Any]) -> list[str]:
    return [f"Trial {trial['trial']}: {trial['why']}" for trial in found["trials"] if trial["state"] == "failed"]


def _said(found: dict[str, Any]) -> dict[str, Any]:
    protocol = {name: value for name, value in found["protocol"].items() if name != "split"}
    return sheet.in_words(protocol) | {
        "fixed settings": ", ".join(f"{name} {setting_text(value)}" for name, value in found["fixed"].items()),
        "settings of the best": ", ".join(found["best"]["assignments"]),
    }


def setting_text(value: Any) -> str:
    """Return the value of a setting as it is shown: five digits are enough to see it by."""
    return f"{value:.5g}" if isinstance(value, float) else str(value).lower()
