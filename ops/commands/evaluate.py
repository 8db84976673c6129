"""`recollect evaluate`: algorithms compared on the same splits, as a table, plain lines, JSON or a page."""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ops.console.progress import StageProgress
from ops.console.table import table
from ops.console.terminal import console
from ops.console.training_messages import data_report_lines, dataset_size
from ops.options.data_options import (
    ColumnsOption,
    DataOption,
    DatesOption,
    DecimalOption,
    EncodingOption,
    requested_data,
)
from ops.options.shared_options import JsonOption, ScaleOption, ThreadsOption
from service.config import from_env

# Imported when the evaluation begins: `--help` needs no numerical library.
if TYPE_CHECKING:
    from service.training.algorithms.registry import ConfiguredAlgorithm

_MEBIBYTE: Final = 1 << 20
_SIGNIFICANCE_LEVEL: Final = 0.05


def command(
    *,
    data: DataOption,
    algorithms: Annotated[
        str,
        typer.Option(
            "--algorithms", metavar="NAMES", help="Names, or label=name, comma separated; popularity is added."
        ),
    ] = "",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="TARGET.NAME=VALUE", help="A setting, as algorithm.name=value or label.name=value."
        ),
    ] = None,
    scale: ScaleOption = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split", metavar="NAME", help="By default folds; or leave-one-out, time, time-per-user, canonical, given."
        ),
    ] = None,
    folds: Annotated[
        int | None, typer.Option("--folds", min=2, max=100, help="Number of random folds; by default 5.")
    ] = None,
    test_share: Annotated[
        float | None, typer.Option("--test-share", help="The held-out share of a split by time; by default 0.2.")
    ] = None,
    test: Annotated[
        str | None, typer.Option("--test", metavar="SOURCE", help="Judge by this set; learn from --data.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seeds the splits, the fits and the samples.")] = 0,
    k: Annotated[
        str, typer.Option("--k", metavar="LENGTHS", help="Lengths of the lists to judge, comma separated.")
    ] = "10,20",
    relevant_from: Annotated[
        float | None, typer.Option("--relevant-from", help="The least rating of a relevant item; by default all are.")
    ] = None,
    users: Annotated[
        int | None, typer.Option("--users", min=1, help="Judge the lists of so many sampled users.")
    ] = None,
    sampled: Annotated[
        int | None, typer.Option("--sampled", min=1, help="Also rank among so many sampled items.")
    ] = None,
    threads: ThreadsOption = 0,
    report: Annotated[Path | None, typer.Option("--report", help="Write a self-contained HTML page.")] = None,
    columns: ColumnsOption = None,
    dates: DatesOption = None,
    encoding: EncodingOption = None,
    decimal: DecimalOption = None,
    as_json: JsonOption = False,
) -> int:
    """Compare algorithms on the same splits; the status is 1 if every algorithm that was asked for failed."""
    from service.errors import UsageError
    from service.models.history.rating_scale import RatingScale
    from service.training.algorithms.kernels import threads as training_threads
    from service.training.checkpoints.folder import checkpoints_in
    from service.training.evaluation import split_dataset
    from service.training.evaluation.comparison import compare
    from service.training.evaluation.evaluation_protocol import TIME_SPLITS, EvaluationProtocol
    from service.training.promotion.incumbent import on_scale
    from service.training.selection.candidates import CANDIDATES

    if report is not None:
        from ops.pages import page

        page.require_writable(report)
    declared = None if scale is None else RatingScale.parse(scale, "--scale")
    candidates = _candidates([name.strip() for name in algorithms.split(",") if name.strip()], settings or [])
    if split is None:
        split = "folds" if test is None else "given"
    if folds is not None and split != "folds":
        raise UsageError(f"A number of folds is given with the split 'folds', not with {split!r}.")
    if test_share is not None and split not in TIME_SPLITS:
        raise UsageError(f"A test share is given with the splits {' and '.join(sorted(TIME_SPLITS))}, not {split!r}.")
    protocol = EvaluationProtocol(
        split=split,
        folds=5 if folds is None else folds,
        test_share=0.2 if test_share is None else test_share,
        seed=seed,
        ks=_list_lengths(k),
        relevant_from=relevant_from,
        most_users=users,
        n_negatives=sampled,
    )
    config = from_env(os.environ)
    request = requested_data(config, data, columns, dates, encoding, decimal)
    held_out = None if test is None else requested_data(config, [test], columns, dates, encoding, decimal)
    kept = checkpoints_in(config.checkpoints_dir, config.models.checkpoint_interval_s)
    with StageProgress() as progress, training_threads.limit(threads), kept:
        dataset, read = split_dataset.read(
            request,
            protocol,
            test=held_out,
            progress=progress,
            prepare=lambda source, interactions: on_scale(config, source, interactions, declared)[0],
            pseudonyms=config.pseudonymiser(),
        )
        candidates = candidates or [replace(each.configured(), label=each.label) for each in CANDIDATES]
        comparison = compare(dataset, candidates, protocol, progress=progress)
    for interactions in read:
        for line in data_report_lines(interactions.report):
            print(line, file=sys.stderr)
    if report is not None:
        from ops.pages import evaluation_page

        page.write(report, evaluation_page.render(comparison))
    if as_json:
        print(json.dumps(comparison, ensure_ascii=False))
    elif sys.stdout.isatty():
        _print_table(comparison)
    else:
        print("\n".join(_lines(comparison)))
    return int(all(result["failed"] for result in comparison["results"][: len(candidates)]))


def _candidates(algorithms: Sequence[str], settings: Sequence[str]) -> "list[ConfiguredAlgorithm]":
    from service.errors import UsageError
    from service.training.algorithms.registry import ConfiguredAlgorithm

    entries = []
    for text in algorithms:
        label, _, name = (part.strip() for part in text.rpartition("="))
        entries.append((label, name))
    labels = [label for label, _ in entries if label]
    for label in labels:
        if labels.count(label) > 1 or any(label == name for other, name in entries if not other):
            raise UsageError(f"{label!r} names two of the algorithms: give each its own label, as in a=svd,b=svd.")
    assignments: list[list[str]] = [[] for _ in entries]
    for (target, setting), values in _by_target(settings).items():
        places = [place for place, (label, name) in enumerate(entries) if (label or name) == target]
        if not places and entries:
            raise UsageError(f"{target}.{setting} is a setting of {target!r}, which is not among the algorithms.")
        if len(values) not in {1, len(places)} and entries:
            raise UsageError(
                f"{target}.{setting} is given {len(values)} values for {len(places)} entries of {target}: give one for "
                "all, or one for each, in their order."
            )
        for index, place in enumerate(places):
            assignments[place].append(f"{setting}={values[index % len(values)]}")
    return [
        replace(ConfiguredAlgorithm.parse(name, mine), label=label)
        for (label, name), mine in zip(entries, assignments, strict=True)
    ]


def _by_target(settings: Sequence[str]) -> dict[tuple[str, str], list[str]]:
    """Parse `target.name=value` texts into the values of each (target, name), in the order given."""
    from service.errors import UsageError

    values: dict[tuple[str, str], list[str]] = {}
    for text in settings:
        target, dot, assignment = text.strip().partition(".")
        name, equals, value = assignment.partition("=")
        if not dot or "=" in target or not equals:
            raise UsageError(f"A setting is given as algorithm.name=value, not as {text!r}.")
        values.setdefault((target, name.strip()), []).append(value)
    return values


def _list_lengths(text: str) -> tuple[int, ...]:
    from service.errors import UsageError

    try:
        return tuple(sorted({int(length) for length in text.split(",")}))
    except ValueError:
        raise UsageError(f"Lengths of lists are whole numbers separated by commas, not {text!r}.") from None


def _headline(comparison: dict[str, Any]) -> str:
    data, protocol = comparison["data"], comparison["protocol"]
    split = f"{protocol['folds']} random folds" if protocol["split"] == "folds" else protocol["split_in_words"]
    if protocol["test_share"] is not None:
        split += f", {protocol['test_share']:.0%}"
    return f"{data['source']}: {dataset_size(data)}; {split}, seed {protocol['seed']}"


def _table_measures(comparison: dict[str, Any]) -> list[str]:
    """Return the measures that a table has room for; the JSON object has all."""
    protocol = comparison["protocol"]
    k = protocol["k"][0]
    errors = [result["measures"]["rmse"] for result in comparison["results"] if "rmse" in result["measures"]]
    has_errors = any(error["mean"] is not None for error in errors)
    names = [*(("rmse", "mae") if has_errors else ()), f"ndcg@{k}", f"recall@{k}", f"coverage@{k}"]
    if protocol["sampled_negatives"] is not None:
        left_out = {"mae", f"coverage@{k}"}
        names = [name for name in names if name not in left_out]
        names.append(f"sampled{protocol['sampled_negatives']}_hit_rate@{k}")
    return names


def _row(result: dict[str, Any], names: Sequence[str]) -> dict[str, str]:
    from service.training.evaluation.measures.prediction_error import RATING_MEASURES, format_measure

    row = {"algorithm": result["label"]}
    for name in names:
        measure = result["measures"].get(name)
        text = format_measure if name in RATING_MEASURES else "{:.4f}".format
        if measure is None or measure["mean"] is None:
            row[name] = "-"
        elif measure["ci95"] is None or name.startswith("coverage"):
            row[name] = text(measure["mean"])
        else:
            low, high = measure["ci95"]
            row[name] = f"{text(measure['mean'])} ±{text((high - low) / 2)}"
    if result["failed"] is not None:
        return row | dict.fromkeys(("fit_s", "predict_s", "model_mib", "peak_mib"), "-")
    return row | {
        "fit_s": f"{result['fit_s']:.2f}",
        "predict_s": "-" if result["predict_s"] is None else f"{result['predict_s']:.2f}",
        "model_mib": f"{result['model_bytes'] / _MEBIBYTE:.1f}",
        "peak_mib": f"{result['peak_bytes'] / _MEBIBYTE:.0f}",
    }


def _verdicts(comparison: dict[str, Any], names: Sequence[str]) -> list[str]:
    """Return for each compared measure the best algorithm, and those that are not significantly worse."""
    verdicts = []
    for name in names:
        pairs = [pair for pair in comparison["comparisons"] if pair["measure"] == name]
        means = {
            result["label"]: result["measures"][name]["mean"]
            for result in comparison["results"]
            if name in result["measures"]
        }
        if not pairs or None in means.values():
            continue
        best = (min if name in {"rmse", "mae"} else max)(means, key=lambda label: means[label])
        equal = [
            (pair["b"] if pair["a"] == best else pair["a"])
            for pair in pairs
            if best in {pair["a"], pair["b"]} and pair["p_holm"] >= _SIGNIFICANCE_LEVEL
        ]
        others = (
            f"not significantly better than {', '.join(equal)}" if equal else "significantly better than all others"
        )
        verdicts.append(f"{name}: {best} is best, {others} (5 %, Holm)")
    return verdicts


def _notes(comparison: dict[str, Any], names: Sequence[str]) -> list[str]:
    return [*_verdicts(comparison, names), *(f"note: {note}" for note in comparison["notes"])]


def _lines(comparison: dict[str, Any]) -> list[str]:
    names = _table_measures(comparison)
    rows = [_row(result, names) for result in comparison["results"]]
    lines = ["  ".join(f"{name} {text}" for name, text in row.items()) for row in rows]
    return [_headline(comparison), *lines, *_notes(comparison, names)]


def _print_table(comparison: dict[str, Any]) -> None:
    from rich.text import Text

    names = _table_measures(comparison)
    rows = [_row(result, names) for result in comparison["results"]]
    out = console()
    out.print(Text(_headline(comparison)))
    print(table(list(rows[0]), [list(row.values()) for row in rows], left=(0,), gap=1), flush=True)
    for line in _notes(comparison, names):
        out.print(Text(line))
