"""`recollect train`: from data to a published, active version, with a summary."""

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ops.console.command_runner import NOT_ACTIVATED
from ops.console.table import table
from ops.console.training_messages import (
    data_report_lines,
    dataset_size,
    held_back_sentence,
    interaction_noun,
    selection_headline,
    selection_lines,
    selection_table,
    selection_verdict,
    was_activated,
)
from ops.console.worker_screen import progress_screen, watch_of
from ops.options.data_options import (
    ColumnsOption,
    DataOption,
    DatesOption,
    DecimalOption,
    EncodingOption,
    requested_data,
)
from ops.options.shared_options import (
    BudgetOption,
    ClusterOption,
    JsonOption,
    ScaleOption,
    ThreadsOption,
    WorkersOption,
)
from service.config import from_env

# Imported when the training begins: `--help` needs no numerical library.
if TYPE_CHECKING:
    from service.training.interactions import Interactions

# The names in service.training.algorithms.registry.
ALGORITHMS = (
    "svd, svdpp, nmf, bayesian_mf, slope_one, knn_basic, knn_means, knn_baseline, baseline, ials, softmax, ease, "
    "item_knn, pure_svd, next_item, popularity, sequence, two_tower, two_tower_rating, rank_net, neural_mf, "
    "or a preset: best, best_ranking, popularity_week"
)


def command(
    *,
    data: DataOption,
    algorithm: Annotated[
        str | None,
        typer.Option(
            "--algorithm",
            metavar="NAME",
            help=f"One of {ALGORITHMS}; by default auto, which serves the candidate with the best lists. Those from "
            "sequence to neural_mf need PyTorch: make deep.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting of the named algorithm.")
    ] = None,
    scale: ScaleOption = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seeds the split and the fit.")] = 0,
    activate: Annotated[
        bool | None,
        typer.Option(
            "--force/--no-activate",
            "--activate",
            help="Serve it in any case, or not; else unless its lists lose to popularity or it is much worse than the "
            "active model.",
        ),
    ] = None,
    budget: BudgetOption = None,
    threads: ThreadsOption = 0,
    workers: WorkersOption = 0,
    cluster: ClusterOption = None,
    columns: ColumnsOption = None,
    dates: DatesOption = None,
    encoding: EncodingOption = None,
    decimal: DecimalOption = None,
    as_json: JsonOption = False,
) -> int:
    """Choose or fit an algorithm, measure on a hold-out, publish, activate; the status is 3 if it is not activated."""
    from ops.chosen_executor import chosen_executor
    from service.models.history.rating_scale import RatingScale
    from service.training import pipeline
    from service.training.algorithms.kernels.threads import limit

    declared = None if scale is None else RatingScale.parse(scale, "--scale")
    started_s = time.monotonic()
    read: list[Interactions] = []
    config = from_env(os.environ)
    with (
        progress_screen(has_workers=bool(workers) or cluster is not None) as progress,
        limit(threads),
        chosen_executor(config, workers, watch_of(progress), cluster=cluster),
    ):
        manifest = pipeline.train(
            config,
            data=requested_data(config, data, columns, dates, encoding, decimal),
            algorithm=algorithm,
            settings=settings or [],
            scale=declared,
            seed=seed,
            activate=activate,
            budget_s=budget,
            progress=progress,
            on_read=read.append,
        )
    for line in data_report_lines(read[0].report):
        print(line, file=sys.stderr)
    held_back = manifest["measures"]["held_back"]
    if as_json:
        print(json.dumps(manifest, indent=2, ensure_ascii=False))
    else:
        took_s = time.monotonic() - started_s
        _print_selection(manifest["selection"])
        print("\n".join(_summary(manifest, models_dir=config.models_dir, activate=activate, took_s=took_s)))
    if held_back is None or activate is not None:
        return 0
    sys.stdout.flush()
    print(f"recollect: {held_back_sentence(manifest)}", file=sys.stderr)
    return NOT_ACTIVATED


def _print_selection(selection: dict[str, Any]) -> None:
    if not sys.stdout.isatty():
        for line in selection_lines(selection):
            print(line)
    elif selection["candidates"]:
        heading, rows = selection_table(selection)
        print(selection_headline(selection))
        print(table(heading, rows, left=(0, 4)))
        print(selection_verdict(selection))


def _summary(manifest: dict[str, Any], *, models_dir: Path, activate: bool | None, took_s: float) -> list[str]:
    from service.training.evaluation.measures.prediction_error import format_measure

    data, measures = manifest["data"], manifest["measures"]
    measured = ", ".join(
        f"{name if '@' in name else name.upper()} {format_measure(value)}"
        for name, value in measures.items()
        if isinstance(value, float)
    )
    sentence = (
        f"On {measures['holdout']['n']:,} {interaction_noun(data)} held out: {measured}.{_against_baseline(measures)}"
        if measured
        else f"Not measured: there are too few {interaction_noun(data)} to hold any out."
    )
    held_back = measures["held_back"]
    if was_activated(manifest, activate):
        state = "It is active; the replicas that run on it swap it in within a second."
        if held_back is not None:
            state += f" It was activated as requested, although {held_back}."
    else:
        force = "" if held_back is None else " --force"
        state = f"It is not active; activate it with: recollect models activate {manifest['version']}{force}"
    return [
        f"Read {data['source']}: {dataset_size(data)}.",
        sentence,
        *_index_lines(manifest["index"]),
        f"Published {manifest['version']} in {models_dir} after {took_s:.1f} s. {state}",
    ]


def _index_lines(index: dict[str, Any]) -> list[str]:
    """Return a line on the item index; none of a small catalogue, which needs no index."""
    if index["kind"] != "exact":
        recall, query_ms = index["recall@10"], index["query_ms"]
        return [f"The item index finds {recall:.1%} of the ten best items in {query_ms} ms."]
    return [f"Lists are exact, without an item index. {index['why']}"] if "why" in index else []


def _against_baseline(measures: dict[str, Any]) -> str:
    """Return a sentence that compares the model with one without personalisation; an empty text if they are equal."""
    from service.training.evaluation.measures.prediction_error import exceeds, format_measure

    baseline = measures["baseline"] or {}
    if measures["rmse"] is not None and "rmse" in baseline and exceeds(measures["rmse"], baseline["rmse"]):
        return f" That is worse than the mean rating alone, whose RMSE is {format_measure(baseline['rmse'])}."
    lists, popularity = measures["ndcg@10"], baseline.get("ndcg@10")
    if lists is None or popularity is None:
        return ""
    if lists < popularity:
        return (
            f" Its lists are worse than a list by popularity, whose ndcg@10 is {format_measure(popularity)}: for "
            "better lists train without --algorithm."
        )
    return "" if lists == popularity else f" A list by popularity has an ndcg@10 of {format_measure(popularity)}."
