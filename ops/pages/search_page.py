"""The page of `recollect search`: the best trials, their course, and the hyperparameters by importance and value."""

from collections.abc import Iterator
from itertools import accumulate
from typing import Any, Final

from ops.console.training_messages import dataset_size
from ops.pages import page, plots
from ops.pages.axis import Axis
from ops.pages.drawing import Key
from ops.pages.page import Cell, Table
from ops.pages.plots import Figure

_MAX_ROWS: Final = 15
_MEASURED_STATES: Final = ("complete", "pruned")
# The ratio of a hyperparameter's largest to its least value from which its axis is logarithmic.
_LOG_FROM_RATIO: Final = 20
# The share of trials, from the best, that the axis of the measure spans; the others are drawn at its end.
_SPANNED_SHARE: Final = 0.8


def render(found: dict[str, Any]) -> str:
    """Return the page of a value of `service.training.search.search_run.search`."""
    data, protocol = found["data"], found["protocol"]
    words = page.spaced_keys({name: value for name, value in protocol.items() if name != "split"})
    return page.render(
        "search.html.j2",
        title=f"Search for the settings of {found['algorithm']} on {page.data_name(data['source'])}",
        headline=_headline(found),
        data=dataset_size(data),
        split=protocol["split_in_words"],
        seed=protocol["seed"],
        trials=_counted(found),
        best=_table(found),
        history=[_history(found), *_importance(found)],
        hyperparameters=[_slice(found, name) for name in found["space"]],
        failures=[f"Trial {trial['trial']}: {trial['why']}" for trial in found["trials"] if trial["state"] == "failed"],
        protocol=words
        | {
            "fixed settings": ", ".join(f"{name} {_setting_text(value)}" for name, value in found["fixed"].items()),
            "settings of the best": ", ".join(found["best"]["assignments"]),
        },
    )


def _headline(found: dict[str, Any]) -> str:
    measure, best, defaults = found["protocol"]["measure"], found["best"], found["defaults"]
    reached = f"The best {measure} is {best['mean']:.4f}, of trial {best['trial']}"
    against = best["against_defaults"]
    if against is None:
        return f"{reached}."
    interval = "" if against["ci95"] is None else " (95 % interval {:+.4f} to {:+.4f})".format(*against["ci95"])
    return (
        f"{reached}; the default settings reach {defaults['mean']:.4f}. The difference is "
        f"{against['difference']:+.4f}{interval} on the same folds."
    )


def _counted(found: dict[str, Any]) -> str:
    states = [trial["state"] for trial in found["trials"]]
    by_state = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    ended = " until it was interrupted" if found["is_interrupted"] else ""
    return f"{len(states)} trials ({by_state}) by {found['protocol']['method']} in {found['seconds']:.0f} s{ended}"


def _table(found: dict[str, Any]) -> Table:
    searched = list(found["space"])
    by_number = {trial["trial"]: trial for trial in found["trials"]}
    rows = [
        _row(str(number), by_number[number], searched, is_best=rank == 0)
        for rank, number in enumerate(found["ranked"][:_MAX_ROWS])
    ]
    if found["defaults"]["mean"] is not None:
        rows.append(_row("defaults", found["defaults"], searched))
    measure = f"{found['protocol']['measure']} {'↓' if _lower_is_better(found) else '↑'}"
    return Table(["trial", measure, "seconds", *searched], rows)


def _row(name: str, trial: dict[str, Any], searched: list[str], *, is_best: bool = False) -> list[str | Cell]:
    half = "" if trial["ci95"] is None else f"±{(trial['ci95'][1] - trial['ci95'][0]) / 2:.4f}"
    values = [_setting_text(trial["settings"][setting]) for setting in searched]
    return [name, Cell(f"{trial['mean']:.4f}", half, "best" if is_best else ""), f"{trial['seconds']:.1f}", *values]


def _history(found: dict[str, Any]) -> Figure:
    measured = _measured(found)
    axis = _measure_axis(found)
    better = min if _lower_is_better(found) else max
    complete = [trial for trial in measured if trial["state"] == "complete"]
    best = list(accumulate((trial["mean"] for trial in complete), better))
    line: list[tuple[float, float]] = []
    for trial, value in zip(complete, best, strict=True):
        if line:
            line.append((trial["trial"], line[-1][1]))
        line.append((trial["trial"], axis.clip(value)))
    if line:
        line.append((measured[-1]["trial"], line[-1][1]))
    across = Axis.over([trial["trial"] for trial in measured], "trial")
    plot = plots.scatter_plot(
        "trials in order", across, axis, _marks(found, axis, None), line, better=_direction(found)
    )
    return Figure("Trial by trial", plot, f"The line is the best so far. {_clipped(found)}", _legend(found))


def _importance(found: dict[str, Any]) -> Iterator[Figure]:
    bars = [(name, 100 * share, f"{share:.0%}") for name, share in found["importance"].items()]
    if bars:
        axis = Axis.over((value for _, value, _ in bars), "share of importance, %", from_zero=True)
        plot = plots.bar_chart("importance of hyperparameters", axis, bars, better="more important →")
        yield Figure("Importance", plot, "PED-ANOVA over the complete trials (Watanabe et al., 2023).")


def _slice(found: dict[str, Any], name: str) -> Figure:
    space, measure = found["space"][name], found["protocol"]["measure"]
    names = _names(space)
    if names is not None:
        across = Axis.categorical(names, name)
    elif "values" in space:
        values = space["values"]
        across = Axis.over(values, name, log=min(values) > 0 and max(values) / min(values) >= _LOG_FROM_RATIO)
    else:
        across = Axis.over((space["low"], space["high"]), name, log=space["log"])
    axis = _measure_axis(found)
    marks = _marks(found, axis, name)
    return Figure(name, plots.scatter_plot(f"{measure} against {name}", across, axis, marks, better=_direction(found)))


def _marks(found: dict[str, Any], axis: Axis, setting: str | None) -> list[plots.Mark]:
    """Return a mark for each measured trial, against one hyperparameter, or in order if that is None."""
    measure = found["protocol"]["measure"]
    names = _names(found["space"][setting]) if setting is not None else None
    marks = []
    for trial in _measured(found):
        value = trial["trial"] if setting is None else trial["settings"][setting]
        x = float(value if names is None else names.index(_setting_text(value)))
        settings = ", ".join(f"{name} {_setting_text(value)}" for name, value in trial["settings"].items())
        text = f"trial {trial['trial']}, {trial['state']}: {measure} {trial['mean']:.4f}; {settings}"
        series = 1 if trial["trial"] == found["best"]["trial"] else 0
        marks.append(plots.Mark(x, axis.clip(trial["mean"]), text, series, is_hollow=trial["state"] != "complete"))
    return marks


def _names(space: dict[str, Any]) -> list[str] | None:
    """Return the values of a categorical hyperparameter as names; None for a numeric one."""
    values = space.get("values")
    if values is None:
        return None
    is_scale = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    return None if is_scale and len(values) > 1 else [_setting_text(value) for value in values]


def _legend(found: dict[str, Any]) -> list[Key]:
    is_any_pruned = any(trial["state"] == "pruned" for trial in _measured(found))
    pruned = [plots.key("pruned", 0, is_hollow=True)] if is_any_pruned else []
    return [plots.key("complete", 0), *pruned, plots.key(f"the best, trial {found['best']['trial']}", 1)]


def _measured(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [trial for trial in found["trials"] if trial["mean"] is not None and trial["state"] in _MEASURED_STATES]


def _measure_axis(found: dict[str, Any]) -> Axis:
    values = sorted(trial["mean"] for trial in _measured(found))
    if not _lower_is_better(found):
        values.reverse()
    spanned = values[: max(2, round(_SPANNED_SHARE * len(values)))]
    return Axis.over(spanned, found["protocol"]["measure"])


def _clipped(found: dict[str, Any]) -> str:
    axis = _measure_axis(found)
    n = sum(axis.clip(trial["mean"]) != trial["mean"] for trial in _measured(found))
    return f"Worst trials drawn on the edge that they lie beyond: {n}." if n else ""


def _lower_is_better(found: dict[str, Any]) -> bool:
    return bool(found["protocol"]["direction"] == "minimize")


def _direction(found: dict[str, Any]) -> str:
    return "↓ better" if _lower_is_better(found) else "↑ better"


def _setting_text(value: Any) -> str:
    """Return the value of a hyperparameter as text, numbers in five digits."""
    return f"{value:.5g}" if isinstance(value, float) else str(value).lower()
