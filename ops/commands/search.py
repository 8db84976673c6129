"""`recollect search`: hyperparameter search with progress on standard error and a table of the best trials."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ops.console.command_runner import NOT_ACTIVATED
from ops.console.progress import StageProgress
from ops.console.search_watch import SearchWatch
from ops.console.table import table
from ops.console.training_messages import data_report_lines, dataset_size, held_back_sentence, was_activated
from ops.options.data_options import (
    ColumnsOption,
    DataOption,
    DatesOption,
    DecimalOption,
    EncodingOption,
    requested_data,
)
from ops.options.shared_options import JsonOption, ScaleOption
from service.config import Config
from service.declared_settings import enumerated

if TYPE_CHECKING:
    # Other commands import this file for its options; only a search loads Optuna, which the train extra installs.
    from service.training.data.data_request import DataRequest
    from service.training.search.search_spec import SearchOptions, SearchSpec
    from service.training.search.study import Method

_N_LISTED: Final = 10
_DEFAULT_MEASURE: Final = {"rating": "rmse", "ranking": "ndcg@10"}


def command(
    *,
    data: DataOption,
    algorithm: Annotated[str, typer.Option("--algorithm", metavar="NAME", help="The algorithm, as for train.")],
    space: Annotated[
        list[str] | None,
        typer.Option(
            "--space",
            metavar="NAME=RANGE",
            help="name=low..high[:log] or name=a,b,c; by default the algorithm's own ranges.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A fixed hyperparameter.")
    ] = None,
    scale: ScaleOption = None,
    method: Annotated[str, typer.Option("--method", metavar="NAME", help="tpe, grid or random.")] = "tpe",
    trials: Annotated[
        int | None,
        typer.Option("--trials", min=1, help="Trials in all; by default 50, or the whole grid, or until --timeout."),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", min=0, help="Begin no trial after this many seconds.")
    ] = None,
    measure: Annotated[
        str | None,
        typer.Option(
            "--measure",
            metavar="NAME",
            help="What to improve; by default rmse, or ndcg@10 of an algorithm that only ranks.",
        ),
    ] = None,
    relevant_from: Annotated[
        float | None, typer.Option("--relevant-from", help="For rankings: the least rating of a relevant item.")
    ] = None,
    users: Annotated[
        int | None, typer.Option("--users", min=1, help="For rankings: judge so many sampled users at most.")
    ] = None,
    split: Annotated[
        str, typer.Option("--split", metavar="NAME", help="folds, leave-one-out, time or time-per-user.")
    ] = "folds",
    folds: Annotated[int, typer.Option("--folds", min=2, max=100, help="Folds of each trial.")] = 5,
    test_share: Annotated[
        float, typer.Option("--test-share", min=0.001, max=0.999, help="The held-out share of a split by time.")
    ] = 0.2,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seeds folds, fits and trials.")] = 0,
    jobs: Annotated[int, typer.Option("--jobs", min=1, max=1024, help="Trials at a time, a process each.")] = 1,
    threads: Annotated[
        int | None,
        typer.Option("--threads", min=1, help="Threads of each process; by default the cores are divided among them."),
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune/--no-prune", help="End trials that are worse than the median between folds.")
    ] = True,
    study: Annotated[
        Path | None, typer.Option("--study", help="A file that keeps the trials and continues an interrupted search.")
    ] = None,
    publish: Annotated[
        bool, typer.Option("--publish", help="Fit the winner on all the data, publish and activate it.")
    ] = False,
    report: Annotated[Path | None, typer.Option("--report", help="Write an HTML page with plots.")] = None,
    columns: ColumnsOption = None,
    dates: DatesOption = None,
    encoding: EncodingOption = None,
    decimal: DecimalOption = None,
    as_json: JsonOption = False,
) -> int:
    """Search for the hyperparameters of an algorithm that measure best."""
    from service.config import from_env
    from service.errors import UsageError

    try:
        from service.training.search.search_spec import SearchOptions, SearchSpec
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "service":
            raise
        raise UsageError(f"A search needs the package {error.name}: install recollect[train].") from error
    from service.training.algorithms.registry import ConfiguredAlgorithm
    from service.training.evaluation.evaluation_protocol import EvaluationProtocol
    from service.training.search.search_space import parse

    fixed = tuple(settings or ())
    spec = SearchSpec(
        algorithm=algorithm,
        fixed=fixed,
        space=parse(algorithm, space or [], fixed),
        measure=measure or _DEFAULT_MEASURE[ConfiguredAlgorithm.parse(algorithm).algorithm.kind],
        protocol=EvaluationProtocol(
            split=split, folds=folds, test_share=test_share, seed=seed, relevant_from=relevant_from, most_users=users
        ),
    )
    options = SearchOptions(
        method=_method(method),
        n_trials=trials,
        timeout_s=timeout,
        n_workers=jobs,
        n_threads=threads or max(1, len(os.sched_getaffinity(0)) // jobs),
        prune=prune,
        study=study,
    )
    config = from_env(os.environ)
    return _search(
        config,
        data=requested_data(config, data, columns, dates, encoding, decimal),
        spec=spec,
        options=options,
        scale=scale,
        publish=publish,
        report=report,
        as_json=as_json,
    )


def _search(
    config: Config,
    *,
    data: "str | DataRequest",
    spec: "SearchSpec",
    options: "SearchOptions",
    scale: str | None = None,
    publish: bool = False,
    report: Path | None = None,
    as_json: bool = False,
) -> int:
    """Search, print the best trials, and publish the winner if that is asked for.

    Raises:
        Interrupted: Ctrl-C ended the search, which publishes nothing; the trials so far are printed.
        RecollectError: The input is refused, no trial succeeded, or the winner cannot be published.
    """
    from ops.pages import page, search_page
    from service.errors import DataError, Interrupted
    from service.models.history.rating_scale import RatingScale
    from service.training import pipeline
    from service.training.data import datasets
    from service.training.data.scale_detection import noted
    from service.training.evaluation.measures.per_user import MeasureName
    from service.training.promotion.incumbent import on_scale
    from service.training.search.search_run import search as run_search
    from service.training.suitability import require_suitable

    if report is not None:
        page.require_writable(report)
    declared = None if scale is None else RatingScale.parse(scale, "--scale")
    with StageProgress() as progress:
        interactions = datasets.read(data, progress, config.pseudonymiser())
    interactions, settled = on_scale(config, data, interactions, declared)
    if settled.origin != "data":
        # Ratings on another scale are other data, for a study too.
        interactions = replace(interactions, fingerprint=f"{interactions.fingerprint} on {settled.scale}")
    if (warning := require_suitable(spec.candidate(), interactions)) is not None:
        interactions = noted(interactions, warning)
    if interactions.all_equal and MeasureName.parse(spec.measure).is_error:
        raise DataError(
            f"All ratings of {interactions.report.source} are equal, so that {spec.measure} is meaningless: "
            "search by --measure ndcg@10."
        )
    for line in data_report_lines(interactions.report):
        print(line, file=sys.stderr)
    with SearchWatch(spec.measure) as watch:
        found = run_search(interactions, spec, options, on_progress=watch)
    # The result is printed before publishing, which may fail.
    if report is not None:
        page.write(report, search_page.render(found))
    if not as_json:
        print("\n".join(_lines(found)), flush=True)
    if publish and not found["is_interrupted"]:
        with _private_umask(), StageProgress() as progress:
            manifest = pipeline.train(
                config,
                data=data,
                algorithm=spec.algorithm,
                settings=found["best"]["assignments"],
                scale=declared,
                seed=spec.protocol.seed,
                progress=progress,
            )
        found["published"] = manifest["version"]
        found["activated"] = was_activated(manifest, None)
        if not as_json:
            state = "It is active." if found["activated"] else "It is not active."
            print(f"Published {found['published']}, fitted on all the data. {state}", flush=True)
    if as_json:
        print(json.dumps(found, ensure_ascii=False), flush=True)
    if found.get("activated") is False:
        print(f"recollect: {held_back_sentence(manifest, 'search')}", file=sys.stderr)
        return NOT_ACTIVATED
    if not found["is_interrupted"]:
        return 0
    kept = "" if options.study is None else "; the same command continues from there"
    raise Interrupted(f"Interrupted after {_trial_counts(found)}{kept}.")


def _lines(found: dict[str, Any]) -> list[str]:
    """Return the result of `search_run.search` as plain lines."""
    data, protocol, best = found["data"], found["protocol"], found["best"]
    searched = list(found["space"])
    by_number = {trial["trial"]: trial for trial in found["trials"]}
    rows = [_row(str(number), by_number[number], searched) for number in found["ranked"][:_N_LISTED]]
    if found["defaults"]["mean"] is not None:
        rows.append(_row("defaults", found["defaults"], searched))
    how = f"{found['algorithm']}, {protocol['split_in_words']}, seed {protocol['seed']}"
    lines = [
        f"{data['source']}: {dataset_size(data)}",
        f"{how}; {_trial_counts(found)} in {found['seconds']:.0f} s",
        *table(["trial", protocol["measure"], "seconds", *searched], rows).splitlines(),
    ]
    if found["importance"]:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in found["importance"].items())
        lines.append(f"Importance: {shares}.")
    failed = [trial for trial in found["trials"] if trial["state"] == "failed"]
    lines += [f"Trial {trial['trial']} failed: {trial['why']}" for trial in failed[:3]]
    if len(failed) > 3:
        lines.append(f"{len(failed) - 3} more failed.")
    against = best["against_defaults"]
    if against is not None:
        lines.append(f"The best against the defaults: {_change(against)}.")
    lines.append("Its settings: " + " ".join(f"--set {text}" for text in best["assignments"]))
    return lines


def _trial_counts(found: dict[str, Any]) -> str:
    states = [trial["state"] for trial in found["trials"]]
    counts = [f"{states.count(state)} {state}" for state in ("complete", "pruned", "failed") if state in states]
    n = sum(state != "running" for state in states)
    return f"{n} {'trial' if n == 1 else 'trials'} ({', '.join(counts)})"


def _row(name: str, trial: dict[str, Any], searched: list[str]) -> list[str]:
    measured = f"{trial['mean']:.4f}"
    if trial["ci95"] is not None:
        low, high = trial["ci95"]
        measured += f" ±{(high - low) / 2:.4f}"
    values = [trial["settings"][setting] for setting in searched]
    return [name, measured, f"{trial['seconds']:.1f}", *map(_value, values)]


def _change(against: dict[str, Any]) -> str:
    if against["ci95"] is None:
        return f"{against['difference']:+.4f}"
    low, high = against["ci95"]
    return f"{against['difference']:+.4f} (95 % interval over the folds {low:+.4f} to {high:+.4f})"


def _value(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value).lower()


@contextmanager
def _private_umask() -> Iterator[None]:
    """Make published files private, as `train` does; the page and the study keep the caller's umask."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def _method(text: str) -> "Method":
    from service.errors import UsageError
    from service.training.search.study import METHODS

    for method in METHODS:
        if text == method:
            return method
    raise UsageError(f"There is no method {text!r}; the methods are {enumerated(METHODS)}.")
