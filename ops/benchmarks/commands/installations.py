"""The benchmarks of whole installations under faults and overload."""

import asyncio
import shutil
from typing import Annotated

import typer

from ops.benchmarks.commands.options import Data, Json, Seed
from ops.benchmarks.report import note, report, require_ratio
from ops.benchmarks.workbench import HOST, Workbench, replica_admin_ports, wait_until_archived
from service.errors import RunError


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
        result = runner.run(live_freshness.measure(plan, bench.scratch, note))
    title = f"delay of lists behind events, {replicas} replicas, {lists:g} lists/s and {events:g} events/s"
    report(
        result.figures(),
        title,
        live_freshness.HEADINGS,
        live_freshness.rows(result, plan.phases),
        as_json=as_json,
    )
    broken = list(result.broken_promises(plan.phases))
    for sentence in broken:
        note(sentence)
    if check and broken:
        raise RunError(f"{len(broken)} promises were not kept.")
    return 0


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

    from ops.benchmarks.installations import outage as outages
    from ops.benchmarks.installations.halves import PairPlan
    from ops.load.population import Target

    plan = PairPlan(pairs=pairs, seconds=seconds, rate=rate, connections=connections, seed=seed)
    with Workbench.temporary() as bench:
        note(f"training on {data}")
        bench.train(data)
        target = Target(HOST, bench.start_all(bench.start_redis(), replicas), "")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            figures = runner.run(outages.compare(plan, bench.home, target, bench.without_redis, note)).figures()
    headings = ("half", "p50", "p99", "replicas' CPU", "failed")
    report(figures, f"lists at {rate:g} requests/s", headings, outages.rows(figures), as_json=as_json)
    if failed := figures["normal"]["failed"] + figures["away"]["failed"]:
        raise RunError(f"{failed} requests failed.")
    for name, limit in (("p50", max_p50), ("p99", max_p99)):
        if limit is not None and figures[f"{name}_ratio"] > limit:
            raise RunError(f"The objective --max-{name} {limit:g} was missed: it is {figures[f'{name}_ratio']:g}.")
    return 0


def services(
    *,
    data: Data = "demo",
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of halves.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.5, help="Length of a half.")] = 10.0,
    rate: Annotated[float, typer.Option(min=1, help="Requests per second.")] = 300.0,
    replicas: Annotated[int, typer.Option(min=1, max=64, help="Replicas that make lists, of each shape.")] = 2,
    candidates: Annotated[int, typer.Option(min=1, max=64, help="Replicas that find candidates.")] = 2,
    connections: Annotated[int, typer.Option(min=1, max=512, help="Kept-alive connections.")] = 32,
    seed: Seed = 1,
    as_json: Json = False,
) -> int:
    """Compare lists of one process with lists of two services, through the balancer."""
    import uvloop

    from ops.benchmarks.installations import two_services
    from ops.benchmarks.installations.halves import PairPlan
    from ops.load.population import Target

    plan = PairPlan(pairs=pairs, seconds=seconds, rate=rate, connections=connections, seed=seed)
    with Workbench.temporary() as single, Workbench.temporary() as split:
        note(f"training on {data}")
        single.train(data)
        shutil.copytree(single.home / "models", split.home / "models")
        shapes = (
            two_services.Shape(
                two_services.ONE, single.home, Target(HOST, single.start_all(single.start_redis(), replicas), "")
            ),
            two_services.Shape(
                two_services.TWO,
                split.home,
                Target(HOST, split.start_all(split.start_redis(), replicas, candidates), ""),
            ),
        )
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            figures = runner.run(two_services.compare(plan, shapes, note)).figures()
    title = f"lists at {rate:g} requests/s"
    report(figures, title, two_services.HEADINGS, two_services.rows(figures), as_json=as_json)
    if failed := sum(figures[name]["failed"] for name in (two_services.ONE, two_services.TWO)):
        raise RunError(f"{failed} requests failed.")
    return 0


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

    from ops.benchmarks.installations import overload as overloads

    plan = overloads.OverloadPlan(
        pairs=pairs, seconds=seconds, factor=factor, peak_connections=peak_connections, connections=connections
    )
    with Workbench.temporary() as bench:
        note(f"training on {data}")
        users, _ = bench.train(data)
        port = bench.start_all(bench.start_redis(), replicas)
        admin_ports = replica_admin_ports(bench.home)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            requests = overloads.requests(users)
            settle = lambda: wait_until_archived(admin_ports)  # noqa: E731
            result = runner.run(overloads.measure(plan, port, requests, settle, note))
    figures = result.figures()
    title = f"goodput to peak: {figures['goodput_ratio']:.3f}"
    report(figures, title, overloads.HEADINGS, overloads.rows(figures), as_json=as_json)
    if broken := list(overloads.broken_promises(result.overloads)):
        raise RunError(f"Promises were broken: {'; '.join(broken)}.")
    require_ratio(result.goodput_ratio, min_ratio)
    return 0


def edge(
    *,
    data: Data = "demo",
    algorithm: Annotated[str, typer.Option(help="As for recollect train.")] = "auto",
    n: Annotated[int, typer.Option(min=1, max=500, help="Items of a list.")] = 10,
    requests: Annotated[int, typer.Option(min=10, help="Requests of each kind.")] = 2000,
    replicas: Annotated[int, typer.Option(min=1, max=64, help="Replicas behind the balancer.")] = 2,
    candidates: Annotated[int, typer.Option(min=0, max=64, help="Replicas that find candidates for them.")] = 0,
    seed: Seed = 1,
    max_p99: Annotated[float | None, typer.Option(help="Objective: the largest p99, in milliseconds.")] = None,
    as_json: Json = False,
) -> int:
    """Measure lists of known and new users at the edge, one request after another."""
    from ops.benchmarks.installations import edge_latency
    from service.models.files import active_model

    plan = edge_latency.EdgePlan(n=n, requests=requests, seed=seed)
    with Workbench.temporary() as bench:
        note(f"training {algorithm} on {data}")
        bench.train(data, ("--algorithm", algorithm))
        port = bench.start_all(bench.start_redis(), replicas, candidates)
        drawn = edge_latency.bodies(active_model.load(bench.home / "models", 60.0), plan)
        result = edge_latency.measure(plan, port, drawn)
    figures = result.figures()
    title = f"lists of {n} items of {algorithm} on {data}, one request after another"
    report(figures, title, edge_latency.HEADINGS, edge_latency.rows(figures), as_json=as_json)
    if max_p99 is not None and (worst_ms := result.worst_p99_ms()) > max_p99:
        raise RunError(f"The objective --max-p99 {max_p99:g} ms was missed: the largest is {worst_ms:.2f} ms.")
    return 0


def scaling(
    *,
    data: Data = "demo",
    seconds: Annotated[float, typer.Option(min=0.5, help="Length of a round.")] = 8.0,
    as_json: Json = False,
) -> int:
    """Send one replica shares of its peak, and print its processor time, its open requests and its latency."""
    import uvloop

    from ops.benchmarks.installations import scaling_signal
    from ops.benchmarks.installations.overload import requests

    with Workbench.temporary() as bench:
        note(f"training on {data}")
        users, _ = bench.train(data)
        redis_url = bench.start_redis()
        bench.start_consumer(redis_url)
        port, admin_port = bench.start_replica(redis_url)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            rounds = runner.run(scaling_signal.measure(port, admin_port, requests(users), seconds, note))
    report(
        scaling_signal.figures(rounds),
        "one replica at shares of its peak",
        scaling_signal.HEADINGS,
        scaling_signal.rows(rounds),
        as_json=as_json,
    )
    return 0
