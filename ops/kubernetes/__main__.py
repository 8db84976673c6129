"""`python -m ops.kubernetes`: the drill of a pod's life."""

import asyncio
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from ops.console.table import table
from ops.containers.image import unpacked
from ops.kubernetes.life_drill import ALL_STEPS, LifeDrill, LifeFigures
from ops.kubernetes.manifests import FOLDER
from ops.kubernetes.small_cluster import RootImage, SmallCluster, image_of_this_machine
from ops.nodes.network import network
from service.errors import RecollectError

# Six pods at most, and places to move to.
N_NODES = 9


def main(
    *,
    rate: Annotated[float, typer.Option("--rate", min=1, help="Requests per second.")] = 300.0,
    overlay: Annotated[str, typer.Option("--overlay", help="The overlay whose pods run.")] = "one-node",
    image: Annotated[
        str | None,
        typer.Option("--image", help="The image `recollect` of `make image`; without it this machine's programs run."),
    ] = None,
    training_image: Annotated[
        str | None, typer.Option("--training-image", help="The image `recollect-training`, in the same way.")
    ] = None,
) -> None:
    """Run the pods of the manifests on nodes of this machine under load: they drain, are killed, and move (root)."""
    with tempfile.TemporaryDirectory(prefix="recollect-pods-") as name:
        folder = Path(name)
        # Pods run as other users than root.
        folder.chmod(0o755)
        try:
            with ExitStack() as stack:
                named = {"recollect": image, "recollect-training": training_image}
                result = run(folder, images_for(named, folder, stack), overlay, rate)
        except RecollectError as error:
            sys.stderr.write(f"recollect: {error}\n")
            raise typer.Exit(1) from None
    print(report(result))
    raise typer.Exit(0 if result.is_kept else 1)


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
        SmallCluster(FOLDER / "overlays" / overlay, images, nodes, folder) as cluster,
    ):
        return asyncio.run(LifeDrill(cluster, rate_rps, lambda line: print(line, flush=True)).run(steps))


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
    typer.run(main)
