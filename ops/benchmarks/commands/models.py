"""The benchmarks of models: against peers, on sets of growing size, and with items that they do not know."""

from pathlib import Path
from typing import Annotated

import typer

from ops.benchmarks.commands.options import Data, Json, Seed
from ops.benchmarks.report import note, print_json, report
from ops.console.table import table
from service.errors import RunError

_PEERS_PYTHON = Path(".venv-peers/bin/python")


def models(
    *,
    data: Data,
    algorithms: Annotated[str | None, typer.Option(help="Comma separated; by default all with a peer.")] = None,
    split: Annotated[str, typer.Option(help="folds, canonical, leave-one-out, time or time-per-user.")] = "folds",
    folds: Annotated[int, typer.Option(min=2, max=100, help="Random folds.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Seeds the folds and the fits.")] = 0,
    peers: Annotated[str, typer.Option(help="Libraries, comma separated, or none.")] = "surprise,implicit,lenskit",
    peers_python: Annotated[Path, typer.Option(help="The interpreter of their environment.")] = _PEERS_PYTHON,
    peer_settings: Annotated[
        list[str] | None, typer.Option("--peer-set", help="A setting of a peer, such as ALS.alpha=10.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads and cores of each side.")] = 1,
    peer_folds: Annotated[int | None, typer.Option(min=1, help="The folds that peers run on; by default all.")] = None,
    svdpp_folds: Annotated[int, typer.Option(min=0, help="The folds that SVDpp of scikit-surprise runs on.")] = 1,
    quick: Annotated[bool, typer.Option(help="Run peers on one fold, without SVDpp of scikit-surprise.")] = False,
    check: Annotated[bool, typer.Option(help="Exit 1 if a bound is missed.")] = False,
    as_json: Json = False,
) -> int:
    """Compare the models with those of scikit-surprise, implicit and LensKit on the same folds."""
    from ops.benchmarks.peers import contest, pairs, peer_comparison
    from service.training.algorithms.registry import ConfiguredAlgorithm
    from service.training.evaluation import split_dataset
    from service.training.evaluation.evaluation_protocol import EvaluationProtocol

    names = pairs.algorithms() if algorithms is None else algorithms.split(",")
    plan = contest.ContestPlan(
        candidates=[ConfiguredAlgorithm.parse(name, pairs.OURS.get(name, ())) for name in map(str.strip, names)],
        protocol=EvaluationProtocol(split=split, folds=folds, seed=seed),
        python=peers_python,
        libraries=pairs.libraries(peers),
        threads=threads,
        peer_folds=1 if quick else peer_folds,
        slow_folds=0 if quick else svdpp_folds,
        peer_settings=pairs.peer_settings(peer_settings or []),
    )
    dataset, _ = split_dataset.read(data, plan.protocol)
    measured = contest.run(plan, dataset, note)
    bounds = list(peer_comparison.bounds(measured, dataset.data, plan.protocol))
    if as_json:
        print_json(peer_comparison.figures(measured, plan, dataset.data))
    else:
        for title, headings, rows in peer_comparison.tables(measured, dataset.data):
            print(f"{title}\n{table(headings, rows, left={0, 1})}\n")
        for sentence in peer_comparison.verdicts(bounds):
            print(sentence)
    missed = [bound.name for bound in bounds if not bound.holds]
    if check and missed:
        raise RunError(f"{len(missed)} of {len(bounds)} bounds were missed: {', '.join(missed)}.")
    return 0


def scale(
    *,
    users: Annotated[int, typer.Option(min=1, help="Users of the largest set.")] = 1_000_000,
    items: Annotated[int, typer.Option(min=1, help="Items of the largest set.")] = 100_000,
    ratings: Annotated[int, typer.Option(min=1, help="Ratings of the largest set.")] = 20_000_000,
    algorithms: Annotated[str, typer.Option(help="Names, comma separated; each must have n_factors.")] = "svd,ials",
    factors: Annotated[int, typer.Option(min=1, help="Factors of a user or an item.")] = 64,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs to train; the median one counts.")] = 3,
    threads: Annotated[int, typer.Option(min=0, help="The most threads; 0 for all cores.")] = 0,
    max_growth: Annotated[float | None, typer.Option(help="Objective: time of a rating, largest to smallest.")] = None,
    as_json: Json = False,
) -> int:
    """Train on synthetic sets of a 16th, a quarter and the whole of a size, and compare the time of a rating."""
    from ops.benchmarks.fits import training_scale
    from service.training.data.demo import DemoSize

    plan = training_scale.ScalePlan(tuple(algorithms.split(",")), n_factors=factors, n_epochs=epochs, threads=threads)
    results = training_scale.run(plan, DemoSize(users, items, ratings), note)
    report({"results": results}, "", training_scale.HEADINGS, training_scale.rows(results), as_json=as_json)
    if max_growth is not None and (grown := list(training_scale.exceeding(results, max_growth))):
        raise RunError(f"The objective --max-growth {max_growth:g} was missed: {'; '.join(grown)}.")
    return 0


def workers(
    *,
    data: Data,
    algorithms: Annotated[str, typer.Option(help="Names, separated by commas.")] = "ials,svd",
    settings: Annotated[list[str] | None, typer.Option("--set", help="A setting that all of them have.")] = None,
    counts: Annotated[str, typer.Option(help="Numbers of workers, and of threads, separated by commas.")] = "1,2",
    turns: Annotated[int, typer.Option(min=1, help="Fits of each; the median one counts.")] = 3,
    as_json: Json = False,
) -> int:
    """Fit with workers and in one process of as many threads, and compare seconds and tables."""
    from ops.benchmarks.fits import worker_fits
    from service.training.algorithms.registry import ConfiguredAlgorithm

    candidates = [ConfiguredAlgorithm.parse(name, settings or ()) for name in algorithms.split(",")]
    measured = worker_fits.run(data, candidates, [int(count) for count in counts.split(",")], turns, note)
    figures = {"data": data, "settings": settings or [], "fits": [fit.as_json() for fit in measured]}
    report(figures, data, worker_fits.HEADINGS, worker_fits.rows(measured), as_json=as_json)
    return 0


def groups(
    *,
    data: Data,
    algorithms: Annotated[str, typer.Option(help="Networks, separated by commas.")] = "two_tower",
    settings: Annotated[list[str] | None, typer.Option("--set", help="A setting that all of them have.")] = None,
    members: Annotated[str, typer.Option(help="Numbers of members, separated by commas.")] = "2",
    every: Annotated[str, typer.Option(help="Values of average_every besides 0, separated by commas.")] = "4,16",
    seeds: Annotated[int, typer.Option(min=1, help="Fits of each way.")] = 3,
    as_json: Json = False,
) -> int:
    """Train networks by groups and by one process, and compare seconds of an epoch and quality."""
    from ops.benchmarks.fits import group_fits
    from service.training.algorithms.registry import ConfiguredAlgorithm

    candidates = [ConfiguredAlgorithm.parse(name, ("patience=0", *(settings or ()))) for name in algorithms.split(",")]
    sizes, averages = ([int(text) for text in texts.split(",") if text] for texts in (members, every))
    measured = group_fits.run(data, candidates, sizes, averages, seeds, note)
    figures = {"data": data, "settings": settings or [], "fits": group_fits.as_json(measured)}
    report(figures, data, group_fits.HEADINGS, group_fits.rows(measured), as_json=as_json)
    return 0


def new_items(
    *,
    data: Data = "demo",
    algorithms: Annotated[str, typer.Option(help="Names, separated by commas.")] = "pure_svd,ials,ease",
    seed: Seed = 1,
    as_json: Json = False,
) -> int:
    """Place items that a model was not trained on, by their attributes and their first raters."""
    from ops.benchmarks.fits import new_items as benchmark

    rows = list(benchmark.run(data, algorithms.split(","), seed, note))
    cells = [
        (
            row.model,
            "" if row.known_raters is None else f"{row.known_raters:.0%}",
            *(f"{value:.3f}" for value in (row.ndcg, row.hit_rate, row.auc)),
        )
        for row in rows
    ]
    headings = ("model", "known raters", "NDCG@10", "hit rate@10", "AUC")
    settings = {"data": data, "algorithms": algorithms, "seed": seed}
    report({"rows": benchmark.as_json(rows), "settings": settings}, data, headings, cells, as_json=as_json)
    return 0
