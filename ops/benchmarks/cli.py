"""`python -m ops.benchmarks NAME`: every benchmark holds Recollect against a yardstick in the same run.

Invariant: only ratios within a run, and processor times, are results; a rate alone says more about the machine.
Everything a benchmark starts lives in a temporary directory and is removed at its end.
"""

import typer

from ops.benchmarks.commands.catalogues import generate, item_index, item_search, search_taste
from ops.benchmarks.commands.costs import filters, fold_in, keys, live, telemetry
from ops.benchmarks.commands.installations import edge, freshness, outage, overload, scaling, services
from ops.benchmarks.commands.models import groups, models, new_items, scale, workers
from ops.benchmarks.commands.route import hello, recommend
from ops.benchmarks.commands.sizes import sizing

app = typer.Typer(
    help="Benchmarks that compare Recollect with a yardstick in the same run.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command()(recommend)
app.command()(telemetry)
app.command()(keys)
app.command(name="fold_in")(fold_in)
app.command()(filters)
app.command()(edge)
app.command()(freshness)
app.command()(outage)
app.command()(overload)
app.command()(services)
app.command()(scaling)
app.command()(models)
app.command()(scale)
app.command()(workers)
app.command()(groups)
app.command()(sizing)
app.command()(new_items)
app.command()(live)
app.command()(generate)
app.command(name="item_index")(item_index)
app.command(name="item_search")(item_search)
app.command(name="search_taste")(search_taste)
app.command()(hello)


def main(argv: list[str]) -> int:
    """Run one benchmark."""
    from ops.console.command_runner import run

    return run(app, argv, name="python -m ops.benchmarks")
