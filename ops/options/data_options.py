"""The command-line options that name a dataset and say how to read it."""

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
        help="A MovieLens directory, a CSV, TSV, JSONL or Parquet file, compressed or not, a directory or zip archive "
        "of such files, - for standard input, archive[:PATH], or demo[:USERSxITEMSxRATINGS]. Repeat it to merge "
        "sources; a later source overrides the rating of a user and item.",
    ),
]
OptionalDataOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--data", metavar="SOURCE", help="As for train; train on it unless the active version already is."),
]
ColumnsOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--columns",
        metavar="ROLE=NAME,…",
        help="Which columns to read, such as user=CustomerNo,item=SKU,rating=,time=; a number from 1 is a position, "
        "an empty name reads none.",
    ),
]
DatesOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--dates", metavar="ORDER", help="Read dates such as 01/02/2021: day-first or month-first."),
]
EncodingOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--encoding",
        metavar="NAME",
        help="The encoding of text files, such as latin-1; by default by the byte order mark, or UTF-8.",
    ),
]
DecimalOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--decimal", metavar="SIGN", help="The decimal separator of ratings: point or comma; by default detected."
    ),
]


def requested_data(
    config: Config,
    data: Sequence[str],
    columns: str | None = None,
    dates: str | None = None,
    encoding: str | None = None,
    decimal: str | None = None,
) -> "DataRequest":
    """Return the request that the options make; `archive` alone is this installation's archive.

    Raises:
        UsageError: An option has an invalid value.
    """
    from service.training.data import data_request
    from service.training.data.formats.archived_events import with_default_path

    sources = [with_default_path(source, config.archive_dir) for source in data]
    return data_request.parse(sources, columns=columns, dates=dates, encoding=encoding, decimal=decimal)
