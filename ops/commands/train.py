"""`recollect train`: from data to a published, active version, with a summary."""

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ops.console.command_runner import NOT_ACTIVATED
from ops.console.progress import StageProgress
from ops.console.training_messages import (
    data_report_lines,
    dataset_size,
    held_back_sentence,
    interaction_noun,
    was_activated,
)
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

# Imported when the training begins: `--help` needs no numerical library.
if TYPE_CHECKING:
    from service.training.interactions import Interactions

# The names in service.training.algorithms.registry.
ALGORITHMS = (
    "svd, svdpp, nmf, bayesian_mf, slope_one, knn_basic, knn_means, knn_baseline, baseline, ials, softmax, ease, "
    "item_knn, pure_svd, popularity, or a preset: best, best_ranking, popularity_week"
)


def command(
    *,
    data: DataOption,
    algorithm: Annotated[
        str | None,
        typer.Option(
            "--algorithm", metavar="NAME", help=f"One of {ALGORITHMS}; by default svd, or ials without ratings."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting of the algorithm.")
    ] = None,
    scale: ScaleOption = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seeds the split and the fit.")] = 0,
    activate: Annotated[
        bool | None,
        typer.Option("--activate/--no-activate", help="Serve it in any case, or not; else unless it is much worse."),
    ] = None,
    threads: ThreadsOption = 0,
    columns: ColumnsOption = None,
    dates: DatesOption = None,
    encoding: EncodingOption = None,
    decimal: DecimalOption = None,
    as_json: JsonOption = False,
) -> int:
    """Fit, measure on a hold-out, publish a version, activate it; the status is 3 if it is held back as much worse."""
    from service.models.rating_scale import RatingScale
    from service.training import pipeline
    from service.training.algorithms.kernels.threads import limit

    declared = None if scale is None else RatingScale.parse(scale, "--scale")
    started_s = time.monotonic()
    read: list[Interactions] = []
    config = from_env(os.environ)
    with StageProgress() as progress, limit(threads):
        manifest = pipeline.train(
            config,
            data=requested_data(config, data, columns, dates, encoding, decimal),
            algorithm=algorithm,
            settings=settings or [],
            scale=declared,
            seed=seed,
            activate=activate,
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
        print("\n".join(_summary(manifest, models_dir=config.models_dir, activate=activate, took_s=took_s)))
    if held_back is None or activate is not None:
        return 0
    sys.stdout.flush()
    print(f"recollect: {held_back_sentence(manifest)}", file=sys.stderr)
    return NOT_ACTIVATED


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
        state = f"It is not active; activate it with: recollect models activate {manifest['version']}"
    return [
        f"Read {data['source']}: {dataset_size(data)}.",
        sentence,
        f"Published {manifest['version']} in {models_dir} after {took_s:.1f} s. {state}",
    ]


def _against_baseline(measures: dict[str, Any]) -> str:
    """Return a sentence if the model is worse than a baseline without personalisation; else an empty text."""
    from service.training.evaluation.measures.prediction_error import exceeds, format_measure

    baseline = measures["baseline"] or {}
    if measures["rmse"] is not None and "rmse" in baseline and exceeds(measures["rmse"], baseline["rmse"]):
        return f" That is worse than the mean rating alone, whose RMSE is {format_measure(baseline['rmse'])}."
    lists = measures["ndcg@10"]
    if lists is not None and "ndcg@10" in baseline and lists < baseline["ndcg@10"]:
        reached = f"a list by popularity, whose ndcg@10 is {format_measure(baseline['ndcg@10'])}"
        if measures["rmse"] is None:
            return f" That is worse than {reached}."
        return f" Its lists are worse than {reached}: for better lists train an algorithm that ranks, such as ials."
    return ""
