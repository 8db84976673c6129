"""`recollect search`: hyper-parameter search, told as it goes, with a table of the best trials at its end."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from ops.commands.train import data_report_lines, held_back_sentence, was_activated
from ops.console.command_runner import NOT_ACTIVATED
from ops.console.dataset_size import dataset_size
from ops.console.progress import StageProgress
from ops.console.search_watch import Watch
from ops.console.table import table
from ops.options.data_options import (
    ColumnsOption,
    DataOption,
    DatesOption,
    DecimalOption,
    EncodingOption,
    requested_data,
)
from service.config import Config
from service.training.data.data_request import DataRequest
from service.training.search.search_request import SearchOptions, SearchSpec
from service.training.search.study import Method

_SHOWN: Final = 10
_MEASURES: Final = {"rating": "rmse", "ranking": "ndcg@10"}


def command(
    *,
    data: DataOption,
    algorithm: Annotated[str, typer.Option("--algorithm", help="Its name.")],
    space: Annotated[
        list[str] | None,
        typer.Option("--space", help="name=low..high[:log] or name=a,b,c; by default the algorithm's own ranges."),
    ] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="A setting that is fixed, as name=value.")] = None,
    scale: Annotated[
        str | None, typer.Option("--scale", help="The least and the largest rating, as 1:5; others are clipped.")
    ] = None,
    method: Annotated[str, typer.Option("--method", help="tpe, grid or random.")] = "tpe",
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, help="Trials in all; 50, or the whole grid, or until --timeout.")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", min=0, help="Begin no trial after so many seconds.")
    ] = None,
    measure: Annotated[
        str | None, typer.Option("--measure", help="What to improve; rmse, or ndcg@10 of what only ranks.")
    ] = None,
    relevant_from: Annotated[
        float | None, typer.Option("--relevant-from", help="For rankings: the least rating of a relevant item.")
    ] = None,
    users: Annotated[
        int | None, typer.Option("--users", min=1, help="For rankings: make lists for so many users at most.")
    ] = None,
    split: Annotated[str, typer.Option("--split", help="folds, leave-one-out, time or time-per-user.")] = "folds",
    folds: Annotated[int, typer.Option("--folds", min=2, max=100, help="Folds of each trial.")] = 5,
    test_share: Annotated[
        float, typer.Option("--test-share", min=0.001, max=0.999, help="The part judged, of a split by time.")
    ] = 0.2,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seeds folds, fits and trials.")] = 0,
    jobs: Annotated[int, typer.Option("--jobs", min=1, max=1024, help="Trials at a time, a process each.")] = 1,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Threads of each; by default the cores are shared out.")
    ] = None,
    prune: Annotated[bool, typer.Option("--prune/--no-prune", help="Give hopeless trials up between folds.")] = True,
    study: Annotated[
        Path | None, typer.Option("--study", help="A file to keep the trials in, and to go on from.")
    ] = None,
    publish: Annotated[
        bool, typer.Option("--publish", help="Fit the winner on all the data, publish and activate it.")
    ] = False,
    report: Annotated[Path | None, typer.Option("--report", help="Write an HTML page with plots.")] = None,
    columns: ColumnsOption = None,
    dates: DatesOption = None,
    encoding: EncodingOption = None,
    decimal: DecimalOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one machine-readable object.")] = False,
) -> int:
    """Look for the settings of an algorithm that measure best."""
    from service.config import from_env
    from service.errors import UsageError

    try:
        from service.training.search.search_request import SearchOptions, SearchSpec
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "service":
            raise
        raise UsageError(f"a search needs the package {error.name}: install recollect[train]") from error
    from service.training.algorithms.registry import Candidate
    from service.training.evaluation.evaluation_protocol import EvaluationProtocol
    from service.training.search.search_space import parse

    fixed = tuple(settings or ())
    question = SearchSpec(
        algorithm=algorithm,
        fixed=fixed,
        space=parse(algorithm, space or [], fixed),
        measure=measure or _MEASURES[Candidate.parse(algorithm).kind],
        protocol=EvaluationProtocol(
            split=split, folds=folds, test_share=test_share, seed=seed, relevant_from=relevant_from, most_users=users
        ),
    )
    effort = SearchOptions(
        method=_method(method),
        n_trials=trials,
        timeout_s=timeout,
        n_workers=jobs,
        n_threads=threads or max(1, len(os.sched_getaffinity(0)) // jobs),
        prune=prune,
        study=study,
    )
    config = from_env(os.environ)
    return search(
        config,
        data=requested_data(config, data, columns, dates, encoding, decimal),
        question=question,
        effort=effort,
        scale=scale,
        publish=publish,
        report=report,
        as_json=as_json,
    )


def search(
    config: Config,
    *,
    data: str | DataRequest,
    question: SearchSpec,
    effort: SearchOptions,
    scale: str | None = None,
    publish: bool = False,
    report: Path | None = None,
    as_json: bool = False,
) -> int:
    """Search, print the best trials, and publish the winner if that is asked for.

    Args:
        config: Where the winner is published, and where the archive is.
        data: What to read.
        question: What is searched for.
        effort: how.
        scale: The least and the largest rating, as LOW:HIGH; None for what is known or found.
        publish: Whether the winner is to be fitted on all the data, published and activated.
        report: Where to write the page; None for none.
        as_json: Print one JSON object instead of a table.

    Returns:
        0; 3 if the winner was published and not activated because it is much worse than the active model.

    Raises:
        Interrupted: Ctrl-C ended the search, which publishes nothing; what was found is printed.
        RecollectError: The input is refused, no trial succeeded, or the winner cannot be published.
    """
    from ops.pages import page, search_page
    from service.errors import DataError, Interrupted
    from service.models.rating_scale import RatingScale
    from service.training import pipeline
    from service.training.data import datasets
    from service.training.evaluation.measures.per_user import MeasureName
    from service.training.incumbent import on_scale
    from service.training.scale_detection import noted
    from service.training.search.search_run import search as run_search
    from service.training.suitability import require_suitable

    if report is not None:
        page.require_writable(report)
    declared = None if scale is None else RatingScale.parse(scale, "--scale")
    with StageProgress() as progress:
        interactions = datasets.read(data, progress)
    interactions, settled = on_scale(config, data, interactions, declared)
    if settled.origin != "data":
        # Ratings that were put onto another scale are other data, also to a study.
        interactions = replace(interactions, fingerprint=f"{interactions.fingerprint} on {settled.scale}")
    if (warning := require_suitable(question.candidate(), interactions)) is not None:
        interactions = noted(interactions, warning)
    if interactions.all_equal and MeasureName.parse(question.measure).is_error:
        raise DataError(
            f"all ratings of {interactions.report.source} are equal, so that {question.measure} says nothing: "
            "search by --measure ndcg@10"
        )
    for line in data_report_lines(interactions.report):
        print(line, file=sys.stderr)
    with Watch(question.measure) as watch:
        found = run_search(interactions, question, effort, watch=watch)
    # What was found is told first: publishing may fail.
    if report is not None:
        page.write(report, search_page.render(found))
    if not as_json:
        print("\n".join(lines(found)), flush=True)
    if publish and not found["is_interrupted"]:
        with _private(), StageProgress() as progress:
            manifest = pipeline.train(
                config,
                data=data,
                algorithm=question.algorithm,
                settings=found["best"]["assignments"],
                scale=declared,
                seed=question.protocol.seed,
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
        print(f"recollect: {held_back_sentence(manifest)}", file=sys.stderr)
        return NOT_ACTIVATED
    if not found["is_interrupted"]:
        return 0
    kept = "" if effort.study is None else "; the same command goes on from there"
    raise Interrupted(f"interrupted after {_counted(found)}{kept}")


def lines(found: dict[str, Any]) -> list[str]:
    """Return what a person is told of a search, as plain lines.

    Args:
        found: What `service.training.search.search_run.search` returned.
    """
    data, protocol, best = found["data"], found["protocol"], found["best"]
    searched = list(found["space"])
    by_number = {trial["trial"]: trial for trial in found["trials"]}
    rows = [_row(str(number), by_number[number], searched) for number in found["ranked"][:_SHOWN]]
    if found["defaults"]["mean"] is not None:
        rows.append(_row("defaults", found["defaults"], searched))
    how = f"{found['algorithm']}, {protocol['split_in_words']}, seed {protocol['seed']}"
    told = [
        f"{data['source']}: {dataset_size(data)}",
        f"{how}; {_counted(found)} in {found['seconds']:.0f} s",
        *table(["trial", protocol["measure"], "seconds", *searched], rows).splitlines(),
    ]
    if found["importance"]:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in found["importance"].items())
        told.append(f"What decided it: {shares}.")
    told += _failures(found["trials"])
    against = best["against_defaults"]
    if against is not None:
        told.append(f"The best against the defaults: {_change(against)}.")
    told.append("Its settings: " + " ".join(f"--set {text}" for text in best["assignments"]))
    return told


def _counted(found: dict[str, Any]) -> str:
    states = [trial["state"] for trial in found["trials"]]
    counts = [f"{states.count(state)} {state}" for state in ("complete", "pruned", "failed") if state in states]
    n = sum(state != "running" for state in states)
    return f"{n} {'trial' if n == 1 else 'trials'} ({', '.join(counts)})"


def _row(name: str, trial: dict[str, Any], searched: list[str]) -> list[str]:
    values = [trial["settings"][setting] for setting in searched]
    return [name, _reached(trial), f"{trial['seconds']:.1f}", *map(_value, values)]


def _reached(trial: dict[str, Any]) -> str:
    if trial["ci95"] is None:
        return f"{trial['mean']:.4f}"
    low, high = trial["ci95"]
    return f"{trial['mean']:.4f} ±{(high - low) / 2:.4f}"


def _change(against: dict[str, Any]) -> str:
    if against["ci95"] is None:
        return f"{against['difference']:+.4f}"
    low, high = against["ci95"]
    return f"{against['difference']:+.4f} (95 % interval over the folds {low:+.4f} to {high:+.4f})"


def _value(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value).lower()


def _failures(trials: list[dict[str, Any]]) -> list[str]:
    failed = [trial for trial in trials if trial["state"] == "failed"]
    told = [f"Trial {trial['trial']} failed: {trial['why']}" for trial in failed[:3]]
    return told if len(failed) <= 3 else [*told, f"{len(failed) - 3} more failed."]


@contextmanager
def _private() -> Iterator[None]:
    """Make whatever is published its owner's alone, as `train` does; the page and the study keep the caller's umask."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def _method(text: str) -> Method:
    from service.errors import UsageError
    from service.training.search.study import METHODS

    for method in METHODS:
        if text == method:
            return method
    raise UsageError(f"there is no method {text!r}; there is {', '.join(METHODS)}")
