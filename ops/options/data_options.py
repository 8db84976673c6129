"""The options with which every verb that reads data is told which and how."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from service.config import Config

if TYPE_CHECKING:
    from service.training.data.data_request import DataRequest

DataOption: TypeAlias = Annotated[
    list[str],
    typer.Option(
        "--data",
        metavar="SOURCE",
        help="A MovieLens directory, a CSV, TSV, JSONL or Parquet file, packed or not, a directory or zip archive of "
        "such files, - for standard input, archive[:PATH], or demo[:USERSxITEMSxRATINGS]. Given several times, the "
        "sources are merged; of a user and an item the later source counts.",
    ),
]
OptionalDataOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--data", metavar="SOURCE", help="As for train; train on this unless the active model already is."),
]
ColumnsOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--columns",
        metavar="ROLE=NAME,…",
        help="Which columns to take, such as user=CustomerNo,item=SKU,rating=,time=; a number from 1 is a position, "
        "an empty name takes none.",
    ),
]
DatesOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--dates", metavar="ORDER", help="Read dates such as 01/02/2021: day-first or month-first."),
]
EncodingOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--encoding", metavar="NAME", help="Of text files, such as latin-1; by default UTF-8 or their mark's."
    ),
]
DecimalOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--decimal", metavar="SIGN", help="Before the decimals of ratings: point or comma; by default seen."),
]


def requested_data(
    config: Config,
    data: Sequence[str],
    columns: str | None = None,
    dates: str | None = None,
    encoding: str | None = None,
    decimal: str | None = None,
) -> "DataRequest":
    """Return what the options ask for; `archive` alone is this installation's.

    Raises:
        UsageError: An option has a value that it cannot have.
    """
    from service.training.data import data_request
    from service.training.data.formats.archived_events import with_default_path

    sources = [with_default_path(source, config.archive_dir) for source in data]
    return data_request.parse(sources, columns=columns, dates=dates, encoding=encoding, decimal=decimal)
