"""`python -m ops.benchmarks NAME`: every benchmark holds Recollect against a yardstick in the same run.

Invariant: only ratios within a run, and processor times, are results; a rate alone says more about the machine.
Everything a benchmark starts lives in a temporary directory and is removed at its end.
"""

import asyncio
import dataclasses
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ops.benchmarks import recommend_route
from ops.benchmarks.workbench import (
    HOST,
    Workbench,
    event_counts,
    pinned,
    replica_admin_ports,
    two_cores,
    wait_until_archived,
)
from ops.console.table import table
from service.errors import RunError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Data = Annotated[str, typer.Option(help="The data to train on, as for recollect train.")]
Seed = Annotated[int, typer.Option(help="Chooses users and events.")]

app = typer.Typer(
    help="Benchmarks that compare Recollect with a yardstick in the same run.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

# A generator busier than this share of its core may be the limit of the faster server.
_GENERATOR_LIMIT = 0.9
_PEERS_PYTHON = Path(".venv-peers/bin/python")


@app.command()
def recommend(
    *,
    data: Data = "demo",
    rounds: Annotated[int, typer.Option(min=1, help="Pairs of rounds.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of a round.")] = 8.0,
    connections: Annotated[int, typer.Option(min=1, max=512, help="Kept-alive connections.")] = 64,
    seed: Seed = 1,
    min_ratio: Annotated[float | None, typer.Option(help="Objective: exit 1 if the ratio is lower.")] = None,
    as_json: Json = False,
) -> int:
    """Compare the recommend route, with all its telemetry, with an aiohttp hello world on one core."""
    server_core, generator_core = two_cores()
    with Workbench.temporary({generator_core}) as bench:
        _note(f"training on {data}")
        users, model = bench.train(data)
        redis_url = bench.start_redis()
        consumer_admin_port = bench.start_consumer(redis_url)
        with pinned({server_core}):
            replica_port, replica_admin_port = bench.start_replica(redis_url)
            hello_port = bench.start_hello()
        comparison = recommend_route.compare(
            hello=(hello_port, [recommend_route.get("/")]),
            recommend=(replica_port, recommend_route.list_requests(users, seed)),
            rounds=rounds,
            seconds=seconds,
            connections=connections,
            settle=lambda: wait_until_archived([replica_admin_port]),
            on_progress=_note,
        )
        telemetry = event_counts(replica_admin_port, consumer_admin_port)
    settings = {"data": data, "rounds": rounds, "seconds": seconds, "connections": connections, "seed": seed}
    figures = comparison.as_json() | {"model": model, "telemetry": telemetry, "settings": settings}
    title = f"{data}: {model['users']} users, {model['items']} items, {model['factors']} factors"
    _report(figures, title, recommend_route.HEADINGS, recommend_route.rows(figures), as_json=as_json)
    failed = sum(one.failed for one in (*comparison.hello, *comparison.recommend))
    if failed:
        raise RunError(f"{failed} answers had a status other than 200, so the rates mean nothing.")
    if telemetry["dropped"] or telemetry["archived"] != telemetry["accepted"]:
        raise RunError(f"Telemetry was incomplete, so the rates mean nothing: {telemetry}.")
    if max(one.generator_share for one in comparison.hello) > _GENERATOR_LIMIT:
        _note("warning: the generator was busy all the time, so hello world may be faster than measured.")
    _require_ratio(comparison.ratio, min_ratio)
    return 0


@app.command()
def telemetry(
    *,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; a figure is the median over them.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.1, help="Seconds at each rate.")] = 1.0,
    events: Annotated[int, typer.Option(min=200, help="Events of the unpaced loops.")] = 10_000,
    max_offer_us: Annotated[float | None, typer.Option(help="Objective: CPU per event on the request path.")] = None,
    max_total_us: Annotated[float | None, typer.Option(help="Objective: CPU per event in all, at 3,000/s.")] = None,
    min_archived: Annotated[float | None, typer.Option(help="Objective: events archived per second of a core.")] = None,
    as_json: Json = False,
) -> int:
    """Measure the processor time of an event, against redis-py alone."""
    from ops.benchmarks.telemetry import telemetry_cost as cost

    measured_core, redis_core = two_cores()
    with Workbench.temporary({redis_core}) as bench:
        plan = cost.CostPlan(rounds=rounds, seconds=seconds, events=events)
        figures = cost.measure(plan, bench.start_redis(), bench.scratch, measured_core, _note).figures()
    headings = ("processor time of one event", "median", "to redis-py")
    _report(figures, "", headings, cost.rows(figures), as_json=as_json)
    if figures["dropped"] or figures["refused"]:
        _note(f"warning: {figures['dropped']} events were dropped and {figures['refused']} refused: the disk stalled.")
    objectives = cost.CostObjectives(offer_us=max_offer_us, total_us=max_total_us, archived_per_s=min_archived)
    if missed := list(cost.missed(figures, objectives)):
        raise RunError(f"Objectives were missed: {'; '.join(missed)}.")
    return 0


@app.command()
def keys(
    *,
    calls: Annotated[int, typer.Option(min=1, help="Checks in a round.")] = 100_000,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; a figure is the median over them.")] = 5,
    max_us: Annotated[float | None, typer.Option(help="Objective: microseconds of an accepted key.")] = None,
    as_json: Json = False,
) -> int:
    """Measure the processor time of an API key check."""
    from ops.benchmarks import key_check_cost

    found_us = key_check_cost.measure(calls, rounds)
    _report(
        {"us": found_us}, "", ("key", "µs"), ((name, f"{us:.2f}") for name, us in found_us.items()), as_json=as_json
    )
    worst_us = max(found_us["bearer"], found_us["x-api-key"])
    if max_us is not None and worst_us > max_us:
        raise RunError(f"The objective --max-us {max_us:g} was missed: a key costs {worst_us:.2f} µs.")
    return 0


@app.command(name="fold_in")
def fold_in(
    *,
    items: Annotated[int, typer.Option(min=1_000, help="Items of the catalogue.")] = 100_000,
    factors: Annotated[int, typer.Option(min=1, help="Factors of the model.")] = 128,
    interactions: Annotated[int, typer.Option(min=1, help="Interactions of a user.")] = 200,
    calls: Annotated[int, typer.Option(min=100, help="Fold-ins of a round.")] = 1_000,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; a figure is the median over them.")] = 7,
    max_sum_us: Annotated[float | None, typer.Option(help="Objective: the 99th percentile where it is a sum.")] = None,
    max_solve_us: Annotated[float | None, typer.Option(help="Objective: likewise where it is a solve.")] = None,
    as_json: Json = False,
) -> int:
    """Measure the processor time of computing a user from interactions."""
    from ops.benchmarks import fold_in_cost

    found = fold_in_cost.measure(items, factors, interactions, calls, rounds)
    rows = ((name, f"{cost.median_us:,.0f}", f"{cost.p99_us:,.0f}") for name, cost in found.items())
    title = f"{interactions} interactions, {factors} factors, {items:,} items"
    figures = {"us": {name: cost._asdict() for name, cost in found.items()}}
    _report(figures, title, ("model", "median, µs", "p99, µs"), rows, as_json=as_json)
    for case in fold_in_cost.CASES:
        limit_us, p99_us = max_solve_us if case.is_solve else max_sum_us, found[case.name].p99_us
        if limit_us is not None and p99_us > limit_us:
            raise RunError(f"The objective of {limit_us:g} µs was missed: {case.name} costs {p99_us:.0f} µs.")
    return 0


@app.command()
def filters(
    *,
    items: Annotated[int, typer.Option(min=1_000, help="Items of the catalogue.")] = 100_000,
    factors: Annotated[int, typer.Option(min=1, help="Factors of the model.")] = 128,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; a figure is the median over them.")] = 7,
    max_us: Annotated[float | None, typer.Option(help="Objective: microseconds of a cached filter.")] = None,
    as_json: Json = False,
) -> int:
    """Measure the processor time of filters, and of lists with them."""
    from ops.benchmarks import filter_cost

    found_us = filter_cost.measure(items, factors, rounds)
    rows = ((name, f"{us:,.1f}") for name, us in found_us.items())
    _report({"us": found_us}, f"{items:,} items, {factors} factors", ("what", "µs"), rows, as_json=as_json)
    cached_us = found_us["mask from the cache, and the scores that match"]
    if max_us is not None and cached_us > max_us:
        raise RunError(f"The objective --max-us {max_us:g} was missed: a cached filter costs {cached_us:.1f} µs.")
    return 0


@app.command()
def freshness(
    *,
    data: Data = "demo",
    seconds: Annotated[float, typer.Option(min=1, help="Length of a phase.")] = 20.0,
    lists: Annotated[float, typer.Option(min=0, help="Lists per second, besides the followed ones.")] = 500.0,
    events: Annotated[float, typer.Option(min=0, help="Events per second, besides the followed ones.")] = 200.0,
    probes: Annotated[float, typer.Option(min=0.1, help="Events per second that are followed.")] = 4.0,
    replicas: Annotated[int, typer.Option(min=1, max=64, help="Replicas behind the balancer.")] = 3,
    seed: Seed = 1,
    check: Annotated[bool, typer.Option(help="Exit 1 if a promise was not kept.")] = False,
    as_json: Json = False,
) -> int:
    """Measure how long lists of each replica lack an event that was posted at the edge, through faults."""
    import uvloop

    from ops.benchmarks.freshness import live_freshness

    plan = live_freshness.FreshnessPlan(
        data=data,
        seconds=seconds,
        lists_per_s=lists,
        events_per_s=events,
        probes_per_s=probes,
        replicas=replicas,
        seed=seed,
    )
    with Workbench.temporary() as bench, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(live_freshness.measure(plan, bench.scratch, _note))
    title = f"delay of lists behind events, {replicas} replicas, {lists:g} lists/s and {events:g} events/s"
    _report(
        result.figures(),
        title,
        live_freshness.HEADINGS,
        live_freshness.rows(result, plan.phases),
        as_json=as_json,
    )
    broken = list(result.broken_promises(plan.phases))
    for sentence in broken:
        _note(sentence)
    if check and broken:
        raise RunError(f"{len(broken)} promises were not kept.")
    return 0


@app.command()
def outage(
    *,
    data: Data = "demo",
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of halves.")] = 7,
    seconds: Annotated[float, typer.Option(min=0.5, help="Length of a half.")] = 30.0,
    rate: Annotated[float, typer.Option(min=1, help="Requests per second.")] = 500.0,
    replicas: Annotated[int, typer.Option(min=1, max=64, help="Replicas behind the balancer.")] = 3,
    connections: Annotated[int, typer.Option(min=1, max=512, help="Kept-alive connections.")] = 64,
    seed: Seed = 1,
    max_p50: Annotated[float | None, typer.Option(help="Objective: the median's ratio.")] = None,
    max_p99: Annotated[float | None, typer.Option(help="Objective: the ratio of the 99th percentiles.")] = None,
    as_json: Json = False,
) -> int:
    """Compare lists while Redis is stopped with normal ones, through the balancer."""
    import uvloop

    from ops.benchmarks import outage as outages
    from ops.load.population import Target

    plan = outages.OutagePlan(pairs=pairs, seconds=seconds, rate=rate, connections=connections, seed=seed)
    with Workbench.temporary() as bench:
        _note(f"training on {data}")
        bench.train(data)
        target = Target(HOST, bench.start_all(bench.start_redis(), replicas), "")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            figures = runner.run(outages.compare(plan, bench.home, target, bench.without_redis, _note)).figures()
    headings = ("half", "p50", "p99", "replicas' CPU", "failed")
    _report(figures, f"lists at {rate:g} requests/s", headings, outages.rows(figures), as_json=as_json)
    if failed := figures["normal"]["failed"] + figures["away"]["failed"]:
        raise RunError(f"{failed} requests failed.")
    for name, limit in (("p50", max_p50), ("p99", max_p99)):
        if limit is not None and figures[f"{name}_ratio"] > limit:
            raise RunError(f"The objective --max-{name} {limit:g} was missed: it is {figures[f'{name}_ratio']:g}.")
    return 0


@app.command()
def overload(
    *,
    data: Data = "demo",
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of a round at the peak and one of overload.")] = 3,
    seconds: Annotated[float, typer.Option(min=0.5, help="Length of a round.")] = 10.0,
    factor: Annotated[float, typer.Option(min=1, help="The overload, as a multiple of the peak.")] = 5.0,
    replicas: Annotated[int, typer.Option(min=1, max=64, help="Replicas behind the balancer.")] = 2,
    peak_connections: Annotated[int, typer.Option(min=1, max=512, help="Connections that find the peak.")] = 64,
    connections: Annotated[int, typer.Option(min=1, max=4096, help="Connections of the overload.")] = 1000,
    min_ratio: Annotated[float | None, typer.Option(help="Objective: goodput under overload to the peak.")] = None,
    as_json: Json = False,
) -> int:
    """Offer an installation a multiple of its peak, through the balancer, and compare its goodput with the peak."""
    import uvloop

    from ops.benchmarks import overload as overloads

    plan = overloads.OverloadPlan(
        pairs=pairs, seconds=seconds, factor=factor, peak_connections=peak_connections, connections=connections
    )
    with Workbench.temporary() as bench:
        _note(f"training on {data}")
        users, _ = bench.train(data)
        port = bench.start_all(bench.start_redis(), replicas)
        admin_ports = replica_admin_ports(bench.home)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            requests = overloads.requests(users)
            settle = lambda: wait_until_archived(admin_ports)  # noqa: E731
            result = runner.run(overloads.measure(plan, port, requests, settle, _note))
    figures = result.figures()
    title = f"goodput to peak: {figures['goodput_ratio']:.3f}"
    _report(figures, title, overloads.HEADINGS, overloads.rows(figures), as_json=as_json)
    if broken := list(overloads.broken_promises(result.overloads)):
        raise RunError(f"Promises were broken: {'; '.join(broken)}.")
    _require_ratio(result.goodput_ratio, min_ratio)
    return 0


@app.command()
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
    measured = contest.run(plan, dataset, _note)
    bounds = list(peer_comparison.bounds(measured, dataset.data, plan.protocol))
    if as_json:
        _print_json(peer_comparison.figures(measured, plan, dataset.data))
    else:
        for title, headings, rows in peer_comparison.tables(measured, dataset.data):
            print(f"{title}\n{table(headings, rows, left={0, 1})}\n")
        for sentence in peer_comparison.verdicts(bounds):
            print(sentence)
    missed = [bound.name for bound in bounds if not bound.holds]
    if check and missed:
        raise RunError(f"{len(missed)} of {len(bounds)} bounds were missed: {', '.join(missed)}.")
    return 0


@app.command()
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
    from ops.benchmarks import training_scale
    from service.training.data.demo import DemoSize

    plan = training_scale.ScalePlan(tuple(algorithms.split(",")), n_factors=factors, n_epochs=epochs, threads=threads)
    results = training_scale.run(plan, DemoSize(users, items, ratings), _note)
    _report({"results": results}, "", training_scale.HEADINGS, training_scale.rows(results), as_json=as_json)
    if max_growth is not None and (grown := list(training_scale.exceeding(results, max_growth))):
        raise RunError(f"The objective --max-growth {max_growth:g} was missed: {'; '.join(grown)}.")
    return 0


@app.command()
def new_items(
    *,
    data: Data = "demo",
    algorithms: Annotated[str, typer.Option(help="Names, separated by commas.")] = "pure_svd,ials,ease",
    seed: Seed = 1,
    as_json: Json = False,
) -> int:
    """Place items that a model was not trained on, by their attributes and their first raters."""
    from ops.benchmarks import new_items as benchmark

    rows = list(benchmark.run(data, algorithms.split(","), seed, _note))
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
    _report({"rows": benchmark.as_json(rows), "settings": settings}, data, headings, cells, as_json=as_json)
    return 0


@app.command()
def live(
    *,
    users: Annotated[int, typer.Option(min=1, help="Users with live events.")] = 100_000,
    events: Annotated[int, typer.Option(min=1, help="Events of a user on average.")] = 10,
    interval_events: Annotated[int, typer.Option(min=1, help="Events between two snapshots.")] = 2_000,
    readers: Annotated[int, typer.Option(min=1, max=64, help="Processes that map the snapshot.")] = 3,
    max_bytes: Annotated[int | None, typer.Option(help="Objective: memory of the state on the machine.")] = None,
    as_json: Json = False,
) -> int:
    """Store the live state of many users, and measure its memory, its saves and its look-ups."""
    from ops.benchmarks import live_state
    from ops.benchmarks.measured_process import run_measured

    with tempfile.TemporaryDirectory(prefix="recollect-live-") as directory:
        task = live_state.LiveTask(directory, users, events, interval_events)
        written = run_measured("ops.benchmarks.live_state", task, live_state.LiveFigures)
        found = live_state.read(Path(directory), users, readers)
    memory_bytes = sum(reader.pss_bytes for reader in found)
    figures = {"written": dataclasses.asdict(written), "readers": [dataclasses.asdict(reader) for reader in found]}
    title = f"{users:,} users, {written.events:,} events"
    _report(figures, title, ("live state", "figure"), live_state.rows(task, written, found), as_json=as_json)
    if max_bytes is not None and memory_bytes > max_bytes:
        raise RunError(f"The objective --max-bytes {max_bytes} was missed: the state takes {memory_bytes} bytes.")
    return 0


@app.command()
def hello(port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")]) -> int:
    """Run the yardstick: aiohttp's web.json_response on uvloop, without an access log."""
    import uvloop
    from aiohttp import web

    async def greet(_: web.Request) -> web.Response:
        return web.json_response({"message": "hello, world"})

    application = web.Application()
    application.router.add_get("/", greet)
    web.run_app(application, host=HOST, port=port, access_log=None, print=None, loop=uvloop.new_event_loop())
    return 0


def _require_ratio(ratio: float, least: float | None) -> None:
    if least is not None and ratio < least:
        raise RunError(f"The objective --min-ratio {least:g} was missed: the ratio is {ratio:.3f}.")


def _report(
    figures: dict[str, Any], title: str, headings: Sequence[str], rows: Iterable[Sequence[str]], *, as_json: bool
) -> None:
    """Print a result and the machine it was measured on, as one JSON object or as a table."""
    if as_json:
        _print_json(figures)
        return
    if title:
        print(title)
    print(table(headings, rows, left={0}))
    print(", ".join(_machine().values()))


def _print_json(figures: dict[str, Any]) -> None:
    print(json.dumps(figures | {"machine": _machine(), "load_1m": os.getloadavg()[0]}, indent=2))


def _machine() -> dict[str, str]:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return {
        "processor": next(names, platform.machine()),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _note(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def main(argv: list[str]) -> int:
    """Run one benchmark."""
    from ops.console.command_runner import run

    return run(app, argv, name="python -m ops.benchmarks")
