"""Options that several verbs have."""

from typing import Annotated, TypeAlias

import typer

JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one machine-readable object.")]
ThreadsOption: TypeAlias = Annotated[int, typer.Option("--threads", min=0, help="Cores to use at most; 0 for all.")]
WorkersOption: TypeAlias = Annotated[
    int,
    typer.Option(
        "--workers",
        min=0,
        max=256,
        help="Processes of this machine that share the work; by default the threads of one process do it all.",
    ),
]
ClusterOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="ADDRESS",
        help="HOST:PORT of the head of a cluster whose workers share the work; this machine must be a part of it.",
    ),
]
ScaleOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--scale", metavar="LOW:HIGH", help="The least and the largest rating, as 1:5; others are clipped."),
]
BudgetOption: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--budget",
        min=0,
        metavar="SECONDS",
        help="How long auto may measure its candidates; by default RECOLLECT_SELECTION_BUDGET_S, or less for small "
        "data.",
    ),
]
ReplicasOption: TypeAlias = Annotated[
    int | None,
    typer.Option("--replicas", min=0, max=256, help="Number of replicas; by default RECOLLECT_REPLICAS, or 3."),
]
CandidatesOption: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--candidates",
        min=0,
        max=256,
        help="Number of replicas that find candidates for the others; by default RECOLLECT_CANDIDATES, or 0: each does"
        " all.",
    ),
]
PortOption: TypeAlias = Annotated[
    int | None,
    typer.Option("--port", min=1, max=65535, help="The balancer's port; by default RECOLLECT_PORT, or 8080."),
]
InsecureOption: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--insecure",
        help="Listen beyond this machine without API keys: everyone who reaches the port may read any list, post events"
        " for any user and erase any user.",
    ),
]
ClaimOption: TypeAlias = Annotated[
    bool, typer.Option("--claim", help="Take over the Redis namespace of another archive; its producers follow.")
]
SupervisedOption: TypeAlias = Annotated[
    bool, typer.Option("--supervised", hidden=True, help="Started by up or balance, which has checked Redis.")
]
