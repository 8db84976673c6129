"""`recollect train`: from data to a published, active model, with what was met on the way."""

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ops.console.command_runner import NOT_ACTIVATED
from ops.console.dataset_size import dataset_size, interaction_noun
from ops.console.progress import StageProgress
from ops.options.data_options import (
    ColumnsOption,
    DataOption,
    DatesOption,
    DecimalOption,
    EncodingOption,
    requested_data,
)
from ops.options.shared_options import JsonOption, ScaleOption, ThreadsOption
from service.config import Config, from_env

# Imported when the training begins: `--help` needs no numerical library.
if TYPE_CHECKING:
    from service.training.data.data_request import DataRequest
    from service.training.interactions import Interactions, ReadReport

# The names in service.training.algorithms.registry.
ALGORITHMS = (
    "svd, svdpp, nmf, bayesian_mf, slope_one, knn_basic, knn_means, knn_baseline, baseline, ials, softmax, ease, "
    "item_knn, popularity, or a preset: best, best_ranking"
)


def command(
    *,
    data: DataOption,
    algorithm: Annotated[
        str | None,
        typer.Option("--algorithm", help=f"One of {ALGORITHMS}; by default svd, or ials without ratings."),
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
    """Fit, measure on a hold-out, publish a version, activate it."""
    config = from_env(os.environ)
    return train(
        config,
        data=requested_data(config, data, columns, dates, encoding, decimal),
        algorithm=algorithm,
        settings=settings or [],
        scale=scale,
        seed=seed,
        activate=activate,
        threads=threads,
        as_json=as_json,
    )


def train(
    config: Config,
    *,
    data: "str | DataRequest",
    algorithm: str | None = None,
    settings: Sequence[str] = (),
    scale: str | None = None,
    seed: int = 0,
    activate: bool | None = None,
    threads: int = 0,
    as_json: bool = False,
) -> int:
    """Train, publish and activate a model; print a summary, or its manifest as JSON.

    Args:
        config: Where models are published.
        data: What to read, see `service.training.data.datasets.read`.
        algorithm: Its name; None for one that suits the data.
        settings: `key=value` texts.
        scale: The least and the largest rating, as LOW:HIGH; None for what is known or found.
        seed: Decides everything random.
        activate: True to serve the new version in any case, False never to; None unless it is much worse.
        threads: How many cores to use at most; 0 for all.
        as_json: Print the manifest instead of the summary.

    Returns:
        0; `NOT_ACTIVATED`, which is 3, if the version was published and not activated because it is much worse.

    Raises:
        RecollectError: The input is refused, or the run failed.
    """
    from service.models.rating_scale import RatingScale
    from service.training import pipeline
    from service.training.algorithms.kernels.threads import limit

    declared = None if scale is None else RatingScale.parse(scale, "--scale")
    started_s = time.monotonic()
    read: list[Interactions] = []
    with StageProgress() as progress, limit(threads):
        manifest = pipeline.train(
            config,
            data=data,
            algorithm=algorithm,
            settings=settings,
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
        for line in _summary(
            manifest, models_dir=config.models_dir, activate=activate, took_s=time.monotonic() - started_s
        ):
            print(line)
    if held_back is None or activate is not None:
        return 0
    sys.stdout.flush()
    print(f"recollect: {held_back_sentence(manifest)}", file=sys.stderr)
    return NOT_ACTIVATED


def held_back_sentence(manifest: dict[str, Any]) -> str:
    """Say that a version was not activated, why, and how it can be all the same."""
    version = manifest["version"]
    return (
        f"{version} was published and not activated: {manifest['measures']['held_back']}. What was active stays; serve "
        f"the new one all the same with: recollect models activate {version} (or train with --activate)"
    )


def data_report_lines(report: "ReadReport") -> list[str]:
    """Return one line for each thing about the data that a person should know of."""
    lines = list(report.columns)
    if report.n_bad_rows:
        are = "is bad and was" if report.n_bad_rows == 1 else "are bad and were"
        lines.append(f"{report.n_bad_rows:,} of {report.n_rows:,} rows {are} left out, such as:")
        lines += [f"  {example}" for example in report.bad_examples]
    if report.n_duplicates:
        rows = "row was" if report.n_duplicates == 1 else "rows were"
        lines.append(f"{report.n_duplicates:,} {rows} left out for a later one of the same user and item.")
    return [*lines, *report.notes]


def was_activated(manifest: dict[str, Any], activate: bool | None) -> bool:  # noqa: FBT001  # what was asked for
    """Say whether a training activated what it published, given what was asked for."""
    return bool(activate or (activate is None and manifest["measures"]["held_back"] is None))


def _summary(manifest: dict[str, Any], *, models_dir: Path, activate: bool | None, took_s: float) -> list[str]:
    from service.training.evaluation.measures.prediction_error import format_measure

    data, measures = manifest["data"], manifest["measures"]
    reached = ", ".join(
        f"{name if '@' in name else name.upper()} {format_measure(value)}"
        for name, value in measures.items()
        if isinstance(value, float)
    )
    measured = (
        f"On {measures['holdout']['n']:,} {interaction_noun(data)} held out: {reached}.{_against_simple(measures)}"
        if reached
        else f"Not measured: there are too few {interaction_noun(data)} to hold any out."
    )
    held_back = measures["held_back"]
    if was_activated(manifest, activate):
        state = "It is active; the replicas that run on it swap it in within a second."
        if held_back is not None:
            state += f" It was activated as you asked, though {held_back}."
    else:
        state = f"It is not active; activate it with: recollect models activate {manifest['version']}"
    return [
        f"Read {data['source']}: {dataset_size(data)}.",
        measured,
        f"Published {manifest['version']} in {models_dir} after {took_s:.1f} s. {state}",
    ]


def _against_simple(measures: dict[str, Any]) -> str:
    """Say so if a model did worse than one that has learnt nothing of users."""
    from service.training.evaluation.measures.prediction_error import exceeds, format_measure

    simple = measures["baseline"] or {}
    if measures["rmse"] is not None and "rmse" in simple and exceeds(measures["rmse"], simple["rmse"]):
        return f" That is worse than the mean rating alone, whose RMSE is {format_measure(simple['rmse'])}."
    lists = measures["ndcg@10"]
    if lists is not None and "ndcg@10" in simple and lists < simple["ndcg@10"]:
        reached = f"a list by popularity, whose NDCG@10 is {format_measure(simple['ndcg@10'])}"
        if measures["rmse"] is None:
            return f" That is worse than {reached}."
        return f" Its lists are worse than {reached}: for better lists train an algorithm that ranks, such as ials."
    return ""
