"""What a size of data costs on a cluster, from unit costs that the other benchmarks measure."""

from typing import Annotated

import typer

from ops.benchmarks.commands.options import Json
from ops.benchmarks.report import print_json
from ops.console.table import table
from service.errors import UsageError


def sizing(
    *,
    users: Annotated[int, typer.Option("--users", min=1, help="Users.")] = 100_000_000,
    items: Annotated[int, typer.Option("--items", min=1, help="Items.")] = 10_000_000,
    per_user: Annotated[float, typer.Option("--per-user", min=1, help="Interactions a user.")] = 50.0,
    machines: Annotated[str, typer.Option("--machines", help="Numbers of machines, separated by commas.")] = "1,4,16",
    cores: Annotated[int, typer.Option("--cores", min=1, help="Cores of a machine.")] = 32,
    gbit: Annotated[float, typer.Option("--gbit", min=0.1, help="The link of a machine, in Gbit/s.")] = 10.0,
    core_hour_eur: Annotated[float, typer.Option("--core-hour-eur", min=0, help="The price of a core.")] = 0.05,
    as_json: Json = False,
) -> int:
    """Compute hours, money, network and memory of trainings and lists of 64 factors on a cluster."""
    from ops.benchmarks import sizing as sizes

    counts = [text.strip() for text in machines.split(",")]
    if not all(text.isdecimal() and int(text) for text in counts):
        raise UsageError(f"--machines is {machines!r}; give numbers, as 1,4,16.")
    rows = sizes.rows(
        sizes.DataSize(users, items, per_user),
        sizes.UnitCosts(),
        sizes.Machines(cores, gbit, core_hour_eur),
        tuple(map(int, counts)),
    )
    if as_json:
        print_json({"rows": [dict(zip(sizes.HEADING, row, strict=True)) for row in rows]})
    else:
        print(table(sizes.HEADING, rows, left=(0,)))
    return 0
