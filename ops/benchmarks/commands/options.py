"""The options that several benchmarks have."""

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Data = Annotated[str, typer.Option(help="The data to train on, as for recollect train.")]
Seed = Annotated[int, typer.Option(help="Chooses users and events.")]
