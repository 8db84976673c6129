"""The benchmarks of large catalogues: their item index, the search in them, and the lists of many users at once."""

from typing import Annotated

import typer

from ops.benchmarks.commands.options import Data, Json, Seed
from ops.benchmarks.report import note, print_json, report, require_ratio
from ops.console.table import table
from service.errors import RunError


def item_index(
    *,
    items: Annotated[int, typer.Option(min=2_000, help="Items of the catalogue.")] = 1_000_000,
    factors: Annotated[int, typer.Option(min=2, help="Factors of the model.")] = 64,
    lists: Annotated[int, typer.Option(min=1, max=1_000, help="Lists of each kind.")] = 200,
    max_ms: Annotated[float | None, typer.Option(help="Objective: the median time of a list.")] = None,
    min_recall: Annotated[float | None, typer.Option(help="Objective: recall@10 of a list.")] = None,
    as_json: Json = False,
) -> int:
    """Measure lists with an item index and without one, and what the index misses."""
    from ops.benchmarks.catalogues import index_cost

    found = index_cost.measure(items, factors, lists)
    description = found.description
    title = (
        f"{items:,} items, {factors} factors; built and measured in {found.build_s:.0f} s: {description['nprobe']} of"
        f" {description['nlist']} cells, recall@10 {description['recall@10']:.3f}"
    )
    rows = (
        (name, f"{with_ms:.2f}", f"{found.p99_ms[name]:.2f}", f"{without_ms:.1f}", f"{found.recall[name]:.3f}")
        for name, (with_ms, without_ms) in found.median_ms.items()
    )
    headings = ("what", "with the index, ms", "p99, ms", "without, ms", "recall@10")
    report(found._asdict(), title, headings, rows, as_json=as_json)
    list_ms, recall = found.median_ms["list"][0], found.recall["list"]
    if max_ms is not None and list_ms > max_ms:
        raise RunError(f"The objective --max-ms {max_ms:g} was missed: a list takes {list_ms:.2f} ms.")
    if min_recall is not None and recall < min_recall:
        raise RunError(f"The objective --min-recall {min_recall:g} was missed: recall@10 is {recall:.3f}.")
    return 0


def generate(
    *,
    users: Annotated[int, typer.Option(min=512, help="Users, a share of them in each round.")] = 10_000,
    items: Annotated[int, typer.Option(min=1_000, help="Items of the catalogue.")] = 100_000,
    factors: Annotated[int, typer.Option(min=1, help="Factors of a user or an item.")] = 64,
    n: Annotated[int, typer.Option("--n", min=1, max=1_000, help="The length of a list.")] = 100,
    rounds: Annotated[int, typer.Option(min=1, help="In each, all methods take the same users in turns.")] = 5,
    workers: Annotated[str, typer.Option(help="Numbers of worker processes, comma separated; empty for none.")] = "1,2",
    worker_users: Annotated[int, typer.Option(min=512, help="Users of each generation with workers.")] = 50_000,
    worker_runs: Annotated[int, typer.Option(min=1, help="Generations with each number of workers.")] = 3,
    min_ratio: Annotated[
        float | None, typer.Option(help="Objective: users whole files reach of the bare product and a selection.")
    ] = None,
    as_json: Json = False,
) -> int:
    """Measure the lists of many users against the bare matrix product and a selection from it."""
    from ops.benchmarks.catalogues import generation_cost

    counts = tuple(int(count) for count in workers.split(",") if count)
    runs = generation_cost.WorkerRuns(counts, worker_users, worker_runs)
    found = generation_cost.measure(users, items, factors, n, rounds, runs)
    title = (
        f"top {n} of {items:,} items, {factors} factors, {users:,} users; files reach {found.ratio:.2f} of the bare "
        f"product and argpartition, {found.ratio_of_kernel:.2f} of the product and the selection kernel alone; "
        f"{found.bytes_per_user:,.0f} bytes a user"
    )
    rows = [(name, f"{us:,.0f}", f"{1e6 / us:,.0f}", "") for name, us in found.us_per_user.items()]
    rows += [
        (f"all of it, {count} workers", f"{us:,.0f}", f"{1e6 / us:,.0f}", f"{rate:,.0f}")
        for count, (rate, us) in found.workers.items()
    ]
    headings = ("what", "us of a core for a user", "users/s of a core", "users/s elapsed")
    report(found._asdict(), title, headings, rows, as_json=as_json)
    require_ratio(min(found.ratio, found.ratio_of_kernel), min_ratio)
    return 0


def item_search(
    *,
    items: Annotated[int, typer.Option(min=2_000, help="Items of the catalogue.")] = 100_000,
    searches: Annotated[int, typer.Option(min=1, help="Searches of each kind.")] = 200,
    max_ms: Annotated[float | None, typer.Option(help="Objective: the median time of the slowest kind.")] = None,
    as_json: Json = False,
) -> int:
    """Measure the search of a catalogue by words."""
    from ops.benchmarks.catalogues import search_cost

    found = search_cost.measure(items, searches)
    title = f"{items:,} items, indexed in {found.build_s:.1f} s, {found.index_bytes / 1e6:.0f} MB"
    rows = ((name, f"{median:.2f}", f"{found.p99_ms[name]:.2f}") for name, median in found.median_ms.items())
    report(found._asdict(), title, ("search", "median, ms", "p99, ms"), rows, as_json=as_json)
    slowest_ms = max(found.median_ms.values())
    if max_ms is not None and slowest_ms > max_ms:
        raise RunError(f"The objective --max-ms {max_ms:g} was missed: the slowest search takes {slowest_ms:.1f} ms.")
    return 0


def search_taste(
    *,
    data: Data,
    algorithm: Annotated[str, typer.Option(help="The model, perhaps followed by :key=value settings.")] = "pure_svd",
    users: Annotated[int, typer.Option(min=10, help="Users who search.")] = 4_000,
    seed: Seed = 0,
    as_json: Json = False,
) -> int:
    """Measure what a user's taste is worth in a search for the last item by a word of its title."""
    from ops.benchmarks.catalogues import search_cost

    found = search_cost.taste(data, algorithm, users, seed, note)
    if as_json:
        print_json({"rows": [row._asdict() for row in found]})
    else:
        rows = [(row.by, f"{row.weight:g}", f"{row.choosing:.3f}", f"{row.judging:.3f}") for row in found]
        print(table(("ordered by", "weight", "MRR, choosing users", "MRR, judging users"), rows, left={0}))
    return 0
