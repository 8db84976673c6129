"""`python -m ops.benchmarks recommend`: the recommend route against an aiohttp hello world, in the same run.

The invariant: both servers get the same core, the same generator on another core and the same number of connections, in
rounds that alternate, and only their ratio is a result: throughput alone says more about the machine than about us.
Everything it starts lives in a temporary directory and is gone afterwards.

Telemetry is on, all of it: the replica sends every list to a real Redis, a consumer archives it, and both share the
generator's core. A run in which an event was dropped is no result. No round of the yardstick begins before the archive
has all of the round before, so that the consumer takes no time from the generator there.
"""

import asyncio
import contextlib
import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from ops.benchmarks.recommend_route import compare, get, list_requests, show
from ops.benchmarks.workbench import HOST, Workbench, on_core, scrape, two_cores
from ops.console.table import table
from ops.console.terminal import console
from service.errors import RunError

app = typer.Typer(
    help="Benchmarks that hold Recollect against a yardstick in the same run.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

_GENERATOR_LIMIT = 0.9
_ARCHIVED_WITHIN_S = 60.0
_PEERS_PYTHON = Path(".venv-peers/bin/python")


@app.command()
def recommend(
    *,
    data: Annotated[str, typer.Option(help="What to train on, as for recollect train.")] = "demo",
    rounds: Annotated[int, typer.Option(min=1, help="Pairs of rounds.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of a round.")] = 8.0,
    connections: Annotated[int, typer.Option(min=1, max=512, help="Kept-alive connections.")] = 64,
    seed: Annotated[int, typer.Option(help="Chooses the users asked about.")] = 1,
    min_ratio: Annotated[float | None, typer.Option(help="Objective: exit 1 if the ratio is lower.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")] = False,
) -> int:
    """Compare the recommend route with an aiohttp hello world on one core."""
    server_core, generator_core = two_cores()
    # A killed benchmark must still take its processes and files away.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="recollect-bench-")))
        stack.enter_context(on_core(generator_core))
        bench = stack.enter_context(Workbench(scratch, os.environ))
        _say(f"training on {data}")
        users, model = bench.train(data)
        redis_url = bench.start_redis()
        consumer_admin_port = bench.start_consumer(redis_url)
        with on_core(server_core):
            replica_port, replica_admin_port = bench.start_replica(redis_url)
            hello_port = bench.start_hello()
        comparison = compare(
            hello=(hello_port, [get("/")]),
            recommend=(replica_port, list_requests(users, seed)),
            rounds=rounds,
            seconds=seconds,
            connections=connections,
            settle=lambda: _await_archived(replica_admin_port),
            say=_say,
        )
        telemetry = _telemetry(replica_admin_port, consumer_admin_port)
    settings = {"data": data, "rounds": rounds, "seconds": seconds, "connections": connections, "seed": seed}
    context = {"model": model, "telemetry": telemetry, "settings": settings, "machine": machine()}
    show(comparison, context, as_json=as_json)
    failed = sum(one.failed for one in (*comparison.hello, *comparison.recommend))
    if failed:
        raise RunError(f"{failed} answers had a status other than 200, so the rates mean nothing.")
    if telemetry["dropped"] or telemetry["archived"] != telemetry["accepted"]:
        raise RunError(f"Telemetry was not all there, so the rates mean nothing: {telemetry}.")
    if max(one.generator_share for one in comparison.hello) > _GENERATOR_LIMIT:
        _say("warning: the generator was busy all the time, so hello world may be quicker than measured.")
    if min_ratio is not None and comparison.ratio < min_ratio:
        raise RunError(f"The objective --min-ratio {min_ratio:g} was missed: the ratio is {comparison.ratio:.3f}.")
    return 0


@app.command()
def telemetry(
    *,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; a figure is the median over them.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long each rate is kept up.")] = 1.0,
    events: Annotated[int, typer.Option(min=200, help="Events of the loops without a pace.")] = 10_000,
    max_offer_us: Annotated[float | None, typer.Option(help="Objective: CPU per event on the request path.")] = None,
    max_total_us: Annotated[float | None, typer.Option(help="Objective: CPU per event in all, at 3,000/s.")] = None,
    min_archived: Annotated[float | None, typer.Option(help="Objective: events archived per second of a core.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")] = False,
) -> int:
    """Measure what telemetry costs an event, against redis-py alone."""
    from ops.benchmarks.telemetry import telemetry_cost as cost

    measured_core, redis_core = two_cores()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="recollect-bench-")))
        stack.enter_context(on_core(redis_core))
        bench = stack.enter_context(Workbench(scratch, os.environ))
        plan = cost.Plan(rounds=rounds, seconds=seconds, events=events)
        figures = cost.measure(plan, bench.start_redis(), scratch, measured_core, _say).figures()
    if as_json:
        print(json.dumps(figures | {"machine": machine(), "load_1m": os.getloadavg()[0]}, indent=2))
    else:
        _print_table("processor time of one event", ("what", "median", "to redis-py"), cost.rows(figures))
    if figures["dropped"] or figures["refused"]:
        _say(
            f"warning: {figures['dropped']} events were dropped and {figures['refused']} refused: the disk stood still."
        )
    objectives = cost.Objectives(offer_us=max_offer_us, total_us=max_total_us, archived_per_s=min_archived)
    if complaints := list(cost.missed(figures, objectives)):
        raise RunError(f"Objectives were missed: {'; '.join(complaints)}.")
    return 0


@app.command()
def outage(
    *,
    data: Annotated[str, typer.Option(help="What to train on, as for recollect train.")] = "demo",
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of halves.")] = 7,
    seconds: Annotated[float, typer.Option(min=0.5, help="Length of a half.")] = 30.0,
    rate: Annotated[float, typer.Option(min=1, help="Requests per second.")] = 500.0,
    replicas: Annotated[int, typer.Option(min=1, max=64, help="Replicas behind the balancer.")] = 3,
    connections: Annotated[int, typer.Option(min=1, max=512, help="Kept-alive connections.")] = 64,
    seed: Annotated[int, typer.Option(help="Chooses users and events.")] = 1,
    max_p50: Annotated[float | None, typer.Option(help="Objective: the median's ratio.")] = None,
    max_p99: Annotated[float | None, typer.Option(help="Objective: the ratio of the 99th percentiles.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")] = False,
) -> int:
    """Compare recommendations while Redis is stopped with normal ones, through the balancer."""
    import uvloop

    from ops.benchmarks import outage as halves
    from ops.load.population import Target

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    plan = halves.Plan(pairs=pairs, seconds=seconds, rate=rate, connections=connections, seed=seed)
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="recollect-bench-")))
        bench = stack.enter_context(Workbench(scratch, os.environ))
        _say(f"training on {data}")
        bench.train(data)
        target = Target(HOST, bench.start_all(bench.start_redis(), replicas), "")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            comparison = runner.run(halves.compare(plan, bench.home, target, bench.without_redis, _say))
    figures = comparison.figures()
    if as_json:
        print(json.dumps(figures | {"machine": machine(), "load_1m": os.getloadavg()[0]}, indent=2))
    else:
        _print_table(
            f"lists at {rate:g} requests/s", ("half", "p50", "p99", "replicas' CPU", "failed"), halves.rows(figures)
        )
    if failed := figures["normal"]["failed"] + figures["away"]["failed"]:
        raise RunError(f"{failed} requests failed.")
    for name, limit in (("p50", max_p50), ("p99", max_p99)):
        if limit is not None and figures[f"{name}_ratio"] > limit:
            raise RunError(f"The objective --max-{name} {limit:g} was missed: it is {figures[f'{name}_ratio']:g}.")
    return 0


@app.command()
def overload(
    *,
    data: Annotated[str, typer.Option(help="What to train on, as for recollect train.")] = "demo",
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of a round at the peak and one of overload.")] = 3,
    seconds: Annotated[float, typer.Option(min=0.5, help="Length of a round.")] = 10.0,
    factor: Annotated[float, typer.Option(min=1, help="How many times the peak is offered.")] = 5.0,
    replicas: Annotated[int, typer.Option(min=1, max=64, help="Replicas behind the balancer.")] = 2,
    peak_connections: Annotated[int, typer.Option(min=1, max=512, help="Connections that find the peak.")] = 64,
    connections: Annotated[int, typer.Option(min=1, max=4096, help="Connections of the overload.")] = 1000,
    min_ratio: Annotated[float | None, typer.Option(help="Objective: goodput under overload to the peak.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")] = False,
) -> int:
    """Offer an installation several times its peak, through the balancer, and say what became of it."""
    import uvloop

    from loadbalancer import roster
    from ops.benchmarks import overload as drill

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    plan = drill.Plan(
        pairs=pairs, seconds=seconds, factor=factor, peak_connections=peak_connections, connections=connections
    )
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="recollect-bench-")))
        bench = stack.enter_context(Workbench(scratch, os.environ))
        _say(f"training on {data}")
        users, _ = bench.train(data)
        port = bench.start_all(bench.start_redis(), replicas)
        admin_ports = [row.admin_port for row in roster.read(bench.home) if row.name.startswith("replica-")]

        def settle() -> None:
            for admin_port in admin_ports:
                if admin_port is not None:
                    _await_archived(admin_port)

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            result = runner.run(drill.measure(plan, port, drill.requests(users), settle, _say))
    figures = result.figures()
    if as_json:
        print(json.dumps(figures | {"machine": machine(), "load_1m": os.getloadavg()[0]}, indent=2))
    else:
        headings = (
            "kind",
            "due",
            "unsent",
            "good",
            "static",
            "refused",
            "failed",
            "p99 ms",
            "refused in",
        )
        _print_table(f"goodput to peak: {figures['goodput_ratio']:.3f}", headings, drill.rows(figures))
    if broken := list(drill.broken_promises(result.overloads)):
        raise RunError(f"Promises were broken: {'; '.join(broken)}.")
    if min_ratio is not None and result.goodput_ratio < min_ratio:
        raise RunError(f"The objective --min-ratio {min_ratio:g} was missed: the ratio is {result.goodput_ratio:.3f}.")
    return 0


@app.command()
def models(
    *,
    data: Annotated[str, typer.Option(help="What to learn from, as for recollect train.")],
    algorithms: Annotated[str | None, typer.Option(help="Ours, comma separated; by default all with a peer.")] = None,
    split: Annotated[str, typer.Option(help="folds, canonical, leave-one-out, time or time-per-user.")] = "folds",
    folds: Annotated[int, typer.Option(min=2, max=100, help="Random folds.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Seeds the folds and the fits.")] = 0,
    peers: Annotated[str, typer.Option(help="Libraries, comma separated, or none.")] = "surprise,implicit,lenskit",
    peers_python: Annotated[Path, typer.Option(help="The interpreter of their environment.")] = _PEERS_PYTHON,
    peer_settings: Annotated[
        list[str] | None, typer.Option("--peer-set", help="A setting of a peer, such as ALS.alpha=10.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads and cores of each side.")] = 1,
    peer_folds: Annotated[int | None, typer.Option(min=1, help="Run peers on so many folds only.")] = None,
    svdpp_folds: Annotated[int, typer.Option(min=0, help="Run scikit-surprise's SVDpp on so many folds.")] = 1,
    quick: Annotated[bool, typer.Option(help="Run peers on one fold, and not SVDpp of scikit-surprise.")] = False,
    check: Annotated[bool, typer.Option(help="Exit 1 if a bound is missed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")] = False,
) -> int:
    """Compare our models with those of scikit-surprise, implicit and LensKit on the same folds."""
    from ops.benchmarks.peers import pairs, peer_comparison
    from ops.benchmarks.peers import peers as contests
    from service.training.algorithms.registry import parse_list
    from service.training.evaluation import split_dataset
    from service.training.evaluation.evaluation_protocol import EvaluationProtocol

    names = pairs.algorithms() if algorithms is None else algorithms.split(",")
    plan = contests.Plan(
        candidates=list(parse_list(names)),
        protocol=EvaluationProtocol(split=split, folds=folds, seed=seed),
        python=peers_python,
        libraries=pairs.libraries(peers),
        threads=threads,
        peer_folds=1 if quick else peer_folds,
        slow_folds=0 if quick else svdpp_folds,
        peer_settings=pairs.peer_settings(peer_settings or []),
    )
    cut, _ = split_dataset.read(data, plan.protocol)
    contest = contests.run(plan, cut, _say)
    asked = list(peer_comparison.bounds(contest, cut.data, plan.protocol))
    if as_json:
        figures = peer_comparison.figures(contest, plan, cut.data)
        print(json.dumps(figures | {"machine": machine(), "load_1m": os.getloadavg()[0]}, indent=2))
    else:
        for title, headings, rows in peer_comparison.tables(contest, cut.data):
            print(f"{title}\n{table(headings, rows, left={0, 1})}\n")
        for sentence in peer_comparison.verdicts(asked):
            print(sentence)
    missed = [bound.what for bound in asked if not bound.holds]
    if check and missed:
        raise RunError(f"{len(missed)} of {len(asked)} bounds were missed: {', '.join(missed)}.")
    return 0


@app.command()
def scale(
    *,
    users: Annotated[int, typer.Option(min=1, help="Users of the largest set.")] = 1_000_000,
    items: Annotated[int, typer.Option(min=1, help="Items of it.")] = 100_000,
    ratings: Annotated[int, typer.Option(min=1, help="Ratings of it.")] = 20_000_000,
    algorithms: Annotated[str, typer.Option(help="Names, comma separated; each must have n_factors.")] = "svd,ials",
    factors: Annotated[int, typer.Option(min=1, help="Factors of a user or an item.")] = 64,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs to train; the median one counts.")] = 3,
    threads: Annotated[int, typer.Option(min=0, help="At most so many; 0 for all cores.")] = 0,
    max_growth: Annotated[float | None, typer.Option(help="Objective: time of a rating, largest to smallest.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")] = False,
) -> int:
    """Train on synthetic sets of a 16th, a quarter and the whole of a size."""
    from ops.benchmarks import training_scale as growth
    from service.training.data.demo import DemoSize

    plan = growth.Plan(algorithms=tuple(algorithms.split(",")), n_factors=factors, n_epochs=epochs, threads=threads)
    figures = growth.run(plan, DemoSize(users, items, ratings), _say)
    if as_json:
        print(json.dumps({"results": figures, "machine": machine(), "load_1m": os.getloadavg()[0]}, indent=2))
    else:
        print(table(growth.HEADINGS, growth.rows(figures), left={0}))
    if max_growth is not None and (grown := list(growth.grown(figures, max_growth))):
        raise RunError(f"The objective --max-growth {max_growth:g} was missed: {'; '.join(grown)}.")
    return 0


@app.command()
def hello(port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")]) -> int:
    """Run the yardstick alone: aiohttp's web.json_response on uvloop, without an access log."""
    import uvloop
    from aiohttp import web

    async def greet(_: web.Request) -> web.Response:
        return web.json_response({"message": "hello, world"})

    application = web.Application()
    application.router.add_get("/", greet)
    web.run_app(application, host=HOST, port=port, access_log=None, print=None, loop=uvloop.new_event_loop())
    return 0


def _await_archived(replica_admin_port: int) -> None:
    """Wait until the replica holds no event any more, which it does until the archive has it."""
    deadline_s = time.monotonic() + _ARCHIVED_WITHIN_S
    while (held := scrape(replica_admin_port)["recollect_telemetry_unarchived_events"]) > 0:
        if time.monotonic() > deadline_s:
            raise RunError(f"After {_ARCHIVED_WITHIN_S:g} s {held:.0f} events were not in the archive yet.")
        time.sleep(0.1)


def _telemetry(replica_admin_port: int, consumer_admin_port: int) -> dict[str, int]:
    """Return what became of the events of all rounds; nothing is under way any more."""
    replica, consumer = scrape(replica_admin_port), scrape(consumer_admin_port)
    return {
        "accepted": int(replica["recollect_telemetry_accepted_total"]),
        "dropped": int(replica["recollect_telemetry_dropped_total"] + replica["recollect_telemetry_refused_total"]),
        "archived": int(consumer["recollect_consumer_archived_total"]),
    }


def machine() -> dict[str, str]:
    """Return what a reader needs to judge the figures: processor, system, Python."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    return {"processor": model, "system": platform.platform(), "python": platform.python_version()}


def _print_table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.table import Table

    table = Table(title=title)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left")
    for row in rows:
        table.add_row(*row)
    out = console(soft_wrap=True)
    out.print(table)
    out.print(", ".join(machine().values()))


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def main(argv: list[str]) -> int:
    """Run one benchmark; what `python -m ops.benchmarks` does."""
    from ops.console.command_runner import run

    return run(app, argv, name="python -m ops.benchmarks")
