"""`python -m ops.kubernetes`: the drills of a pod's life and of the cluster that trains."""

import asyncio
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from ops.console.table import table
from ops.containers.image import unpacked
from ops.kubernetes import cluster_drill
from ops.kubernetes.cluster_drill import ClusterDrill, JobFigures, Trial
from ops.kubernetes.life_drill import ALL_STEPS, LifeDrill, LifeFigures
from ops.kubernetes.manifests import FOLDER
from ops.kubernetes.pod_installation import PodInstallation, RootImage, image_of_this_machine
from ops.nodes.network import network
from service.errors import RecollectError

# Six pods at most, and places to move to.
N_NODES = 9
_NETWORKS = ("sequence", "two_tower", "two_tower_rating", "rank_net", "neural_mf")

app = typer.Typer(help="Run the pods of the manifests on nodes of this machine (root).", no_args_is_help=True)

OverlayOption: TypeAlias = Annotated[str, typer.Option("--overlay", help="The overlay whose pods run.")]
TrainingImageOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--training-image",
        help="The image `recollect-training` of `make image`; without it this machine's programs run.",
    ),
]


@app.command("life")
def life_command(
    *,
    rate: Annotated[float, typer.Option("--rate", min=1, help="Requests per second.")] = 300.0,
    overlay: OverlayOption = "one-node",
    image: Annotated[str | None, typer.Option("--image", help="The image `recollect`, in the same way.")] = None,
    training_image: TrainingImageOption = None,
) -> None:
    """Run the pods under load: they drain, are killed, and move."""
    named = {"recollect": image, "recollect-training": training_image}
    with _prepared(named) as (folder, images):
        result = run(folder, images, overlay, rate)
    print(report(result))
    raise typer.Exit(0 if result.is_kept else 1)


@app.command("cluster")
def cluster_command(
    *,
    data: Annotated[str, typer.Option("--data", help="What to train on.")] = "demo:6000x2000x400000",
    algorithms: Annotated[
        str, typer.Option("--algorithms", help="Which to train, separated by commas; the first one also generates.")
    ] = "ials",
    overlay: OverlayOption = "one-node",
    training_image: TrainingImageOption = None,
) -> None:
    """Train and generate with the pods of the component `cluster`, and kill a worker's pod in each training."""
    with _prepared({"recollect-training": training_image}) as (folder, images):
        figures = run_cluster(folder, images, overlay, data, algorithms.split(","))
    print(cluster_report(figures))
    raise typer.Exit(0 if all(each.is_equal for each in figures) else 1)


@contextmanager
def _prepared(named: Mapping[str, str | None]) -> Iterator[tuple[Path, dict[str | None, RootImage]]]:
    """Make a folder of state, and what containers run; an error of the drill is a sentence and the status 1."""
    # Not in /tmp, which is often small.
    with (
        tempfile.TemporaryDirectory(prefix="recollect-pods-", dir="/var/tmp") as name,
        ExitStack() as stack,
    ):
        folder = Path(name)
        # Pods run as other users than root.
        folder.chmod(0o755)
        try:
            yield folder, images_for(named, folder, stack)
        except RecollectError as error:
            sys.stderr.write(f"recollect: {error}\n")
            raise typer.Exit(1) from None


def images_for(named: Mapping[str, str | None], folder: Path, stack: ExitStack) -> dict[str | None, RootImage]:
    """Return what containers run: the named images, and this machine's programs for those without a name.

    Raises:
        RunError: There is no such image.
    """
    images: dict[str | None, RootImage] = {None: image_of_this_machine(folder)}
    for image, name in named.items():
        if name is not None:
            made = stack.enter_context(unpacked(name))
            images[image] = RootImage(made.root, made.entrypoint, environ=made.environ)
    return images


def run(
    folder: Path,
    images: Mapping[str | None, RootImage],
    overlay: str,
    rate_rps: float,
    steps: tuple[str, ...] = ALL_STEPS,
) -> LifeFigures:
    """Run the drill with its state in a folder.

    Raises:
        RunError: This machine cannot make nodes, or a pod does not do what the drill asks.
    """
    (folder / "nodes").mkdir()
    names = [f"node-{number}" for number in range(N_NODES)]
    with (
        network(N_NODES, names=names, folder=folder / "nodes") as nodes,
        PodInstallation(FOLDER / "overlays" / overlay, images, nodes, folder) as installation,
    ):
        return asyncio.run(LifeDrill(installation, rate_rps, lambda line: print(line, flush=True)).run(steps))


def run_cluster(
    folder: Path, images: Mapping[str | None, RootImage], overlay: str, data: str, algorithms: list[str]
) -> list[JobFigures]:
    """Run the drill of the cluster with its state in a folder.

    Raises:
        RunError: This machine cannot make nodes, or a pod does not do what the drill asks.
    """
    (folder / "nodes").mkdir()
    names = [f"node-{number}" for number in range(cluster_drill.N_NODES)]
    with network(cluster_drill.N_NODES, names=names, folder=folder / "nodes") as nodes:
        drill = ClusterDrill(images, nodes, folder, data, overlay, lambda line: print(line, flush=True))
        # The first one at the end: its model is the active one when lists are made.
        return drill.run([_trial(drill, name) for name in reversed(algorithms)])


def _trial(drill: ClusterDrill, algorithm: str) -> Trial:
    """Return the training of an algorithm, in a short form, that makes the same without the cluster."""
    if algorithm not in _NETWORKS:
        return Trial(algorithm)
    # The result of a network depends on the number of members.
    return Trial(algorithm, ("--set", "n_epochs=2"), ("--workers", str(drill.n_workers())))


def cluster_report(figures: list[JobFigures]) -> str:
    """Return the figures of the cluster as text."""
    heading = ("work", "without s", "cluster s", "processes killed", "result")
    rows = [
        (
            each.work,
            f"{each.alone_s:.1f}",
            f"{each.cluster_s:.1f}",
            "-" if each.n_killed is None else f"{each.n_killed}",
            "equal" if each.is_equal else "DIFFERS",
        )
        for each in figures
    ]
    return table(heading, rows, left={0, 4})


def report(result: LifeFigures) -> str:
    """Return the figures as text."""
    heading = ("step", "s", "requests", "failed", "retried", "p50 ms", "p99 ms", "max ms")
    rows = [
        (
            step.name,
            f"{step.seconds:.1f}",
            f"{step.figures.requests:,}",
            f"{sum(step.figures.failures.values())}",
            f"{step.figures.raw_failed}",
            *(
                "-" if value is None else f"{value:.1f}"
                for value in (step.figures.p50_ms, step.figures.p99_ms, step.figures.max_ms)
            ),
        )
        for step in result.steps
    ]
    found = result.findings
    lines = [
        table(heading, rows, left={0}),
        f"{result.failed} requests failed with one retry.",
        *(
            f"{step.name}: {count} failed by {cause}"
            for step in result.steps
            for cause, count in step.figures.failures.items()
        ),
        (
            f"Of {found.expected:,} acknowledged events and lists {len(found.lost)} are lost, {len(found.duplicated)}"
            f" duplicated and {len(found.altered)} altered in the archive."
        ),
        *found.examples,
    ]
    if result.restarts:
        lines.append(f"A liveness probe failed {result.restarts} times.")
    return "\n".join(lines)


if __name__ == "__main__":
    app()
