"""The benchmarks of what one part costs: an event, a key, a fold-in, a filter, and the live state."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from ops.benchmarks.commands.options import Json
from ops.benchmarks.report import note, report
from ops.benchmarks.workbench import Workbench, two_cores
from service.errors import RunError


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
        figures = cost.measure(plan, bench.start_redis(), bench.scratch, measured_core, note).figures()
    headings = ("processor time of one event", "median", "to redis-py")
    report(figures, "", headings, cost.rows(figures), as_json=as_json)
    if figures["dropped"] or figures["refused"]:
        note(f"warning: {figures['dropped']} events were dropped and {figures['refused']} refused: the disk stalled.")
    objectives = cost.CostObjectives(offer_us=max_offer_us, total_us=max_total_us, archived_per_s=min_archived)
    if missed := list(cost.missed(figures, objectives)):
        raise RunError(f"Objectives were missed: {'; '.join(missed)}.")
    return 0


def keys(
    *,
    calls: Annotated[int, typer.Option(min=1, help="Checks in a round.")] = 100_000,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; a figure is the median over them.")] = 5,
    max_us: Annotated[float | None, typer.Option(help="Objective: microseconds of an accepted key.")] = None,
    as_json: Json = False,
) -> int:
    """Measure the processor time of an API key check."""
    from ops.benchmarks.costs import key_check_cost

    found_us = key_check_cost.measure(calls, rounds)
    report({"us": found_us}, "", ("key", "µs"), ((name, f"{us:.2f}") for name, us in found_us.items()), as_json=as_json)
    worst_us = max(found_us["bearer"], found_us["x-api-key"])
    if max_us is not None and worst_us > max_us:
        raise RunError(f"The objective --max-us {max_us:g} was missed: a key costs {worst_us:.2f} µs.")
    return 0


def fold_in(
    *,
    items: Annotated[int, typer.Option(min=1_000, help="Items of the catalogue.")] = 100_000,
    factors: Annotated[int, typer.Option(min=1, help="Factors of the model.")] = 128,
    interactions: Annotated[int, typer.Option(min=1, help="Interactions of a user.")] = 200,
    calls: Annotated[int, typer.Option(min=100, help="Fold-ins of a round.")] = 1_000,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; a figure is the median over them.")] = 7,
    max_sum_us: Annotated[float | None, typer.Option(help="Objective: the 99th percentile where it is a sum.")] = None,
    max_solve_us: Annotated[float | None, typer.Option(help="Objective: likewise where it is a solve.")] = None,
    max_network_us: Annotated[float | None, typer.Option(help="Objective: likewise of a network.")] = None,
    as_json: Json = False,
) -> int:
    """Measure the processor time of computing a user from interactions."""
    from ops.benchmarks.costs import fold_in_cost

    found = fold_in_cost.measure(items, factors, interactions, calls, rounds)
    rows = ((name, f"{cost.median_us:,.0f}", f"{cost.p99_us:,.0f}") for name, cost in found.items())
    title = f"{interactions} interactions, {factors} factors, {items:,} items"
    figures = {"us": {name: cost._asdict() for name, cost in found.items()}}
    report(figures, title, ("model", "median, µs", "p99, µs"), rows, as_json=as_json)
    limits_us = {"sum": max_sum_us, "solve": max_solve_us, "network": max_network_us}
    for case in fold_in_cost.CASES:
        limit_us, p99_us = limits_us[case.work], found[case.name].p99_us
        if limit_us is not None and p99_us > limit_us:
            raise RunError(f"The objective of {limit_us:g} µs was missed: {case.name} costs {p99_us:.0f} µs.")
    return 0


def filters(
    *,
    items: Annotated[int, typer.Option(min=1_000, help="Items of the catalogue.")] = 100_000,
    factors: Annotated[int, typer.Option(min=1, help="Factors of the model.")] = 128,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; a figure is the median over them.")] = 7,
    max_us: Annotated[float | None, typer.Option(help="Objective: microseconds of a cached filter.")] = None,
    as_json: Json = False,
) -> int:
    """Measure the processor time of filters, and of lists with them."""
    from ops.benchmarks.costs import filter_cost

    found_us = filter_cost.measure(items, factors, rounds)
    rows = ((name, f"{us:,.1f}") for name, us in found_us.items())
    report({"us": found_us}, f"{items:,} items, {factors} factors", ("what", "µs"), rows, as_json=as_json)
    cached_us = found_us["mask from the cache, and the scores that match"]
    if max_us is not None and cached_us > max_us:
        raise RunError(f"The objective --max-us {max_us:g} was missed: a cached filter costs {cached_us:.1f} µs.")
    return 0


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
    from ops.benchmarks.costs import live_state
    from ops.benchmarks.measured_process import run_measured

    with tempfile.TemporaryDirectory(prefix="recollect-live-") as directory:
        task = live_state.LiveTask(directory, users, events, interval_events)
        written = run_measured("ops.benchmarks.costs.live_state", task, live_state.LiveFigures)
        found = live_state.read(Path(directory), users, readers)
    memory_bytes = sum(reader.pss_bytes for reader in found)
    figures = {"written": dataclasses.asdict(written), "readers": [dataclasses.asdict(reader) for reader in found]}
    title = f"{users:,} users, {written.events:,} events"
    report(figures, title, ("live state", "figure"), live_state.rows(task, written, found), as_json=as_json)
    if max_bytes is not None and memory_bytes > max_bytes:
        raise RunError(f"The objective --max-bytes {max_bytes} was missed: the state takes {memory_bytes} bytes.")
    return 0
