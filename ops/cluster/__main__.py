"""`python -m ops.cluster`: the drill of a cluster of two machines."""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from ops.cluster.loss_drill import LOSSES, LossFigures, TwoMachines, Work, drill
from ops.console.table import table
from ops.nodes.network import network
from service.errors import RecollectError, UsageError
from service.training.algorithms import registry

# What these give depends on no number of workers; networks depend on the number of members.
_ALIKE_ALONE = ("ials", "svd", "pure_svd", "next_item")
_FEW_EPOCHS = {"ials": "n_epochs=4", "svd": "n_epochs=6"}
_NETWORK_EPOCHS = "n_epochs=2"


def main(
    *,
    data: Annotated[str, typer.Option("--data", help="What to train on.")] = "demo:6000x2000x400000",
    algorithms: Annotated[
        str, typer.Option("--algorithms", help="Which to train, separated by commas; the first one also generates.")
    ] = "ials,next_item,two_tower",
    workers: Annotated[int, typer.Option("--workers", min=1, help="Workers of each machine.")] = 1,
) -> None:
    """Train and generate on two nodes of this machine, lose workers and a node meanwhile, and compare (root)."""
    try:
        figures = run(data, algorithms.split(","), workers)
    except RecollectError as error:
        sys.stderr.write(f"recollect: {error}\n")
        raise typer.Exit(error.exit_code) from None
    heading = ["work", "lost", "one machine s", "cluster s", "processes killed", "result"]
    rows = [
        [
            each.work,
            each.loss or "nothing",
            f"{each.alone_s:.1f}",
            f"{each.cluster_s:.1f}",
            str(each.n_killed),
            "equal" if each.is_equal else "DIFFERS",
        ]
        for each in figures
    ]
    print(table(heading, rows, left=(0, 1, 5)))
    raise typer.Exit(0 if all(each.is_equal for each in figures) else 1)


def run(data: str, algorithms: list[str], n_workers: int) -> list[LossFigures]:
    """Run the whole drill.

    Raises:
        RecollectError: Nodes cannot be made, a command failed, or an algorithm does not share its work.
    """
    for name in algorithms:
        if name not in registry.DISTRIBUTED:
            raise UsageError(f"{name} is trained in one process; these are not: {', '.join(registry.DISTRIBUTED)}.")
    # Not in /tmp, of which each node has its own: Ray keeps its sockets there, and would find those of the other node.
    folder = Path(tempfile.mkdtemp(prefix="recollect-cluster-", dir="/var/tmp"))  # private
    try:
        with network(2, names=["first", "second"], folder=folder, private=[Path("/tmp")]) as (first, second):  # noqa: S108
            machines = TwoMachines(first, second, n_workers, _notify)
            with machines.running():
                return list(drill(machines, works(data, algorithms, n_workers), LOSSES, _notify))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def works(data: str, algorithms: list[str], n_workers: int) -> list[Work]:
    """Return the trainings, and a generation by the first model right after its training."""
    found = []
    for name in algorithms:
        is_network = name not in _ALIKE_ALONE
        epochs = _NETWORK_EPOCHS if is_network else _FEW_EPOCHS.get(name)
        settings = ("--set", epochs) if epochs else ()
        argv = ("train", "--data", data, "--algorithm", name, "--force", *settings)
        alone = ("--workers", str(2 * n_workers)) if is_network else ()
        found.append(Work(f"train {name}", argv, alone, _tables))
        if name == algorithms[0]:
            found.append(Work("generate", ("generate", "--n", "50", "--shard-users", "250"), (), _shards))
    return found


def _tables(manifest: dict[str, Any]) -> Any:
    return {name: array["sha256"] for name, array in manifest["arrays"].items()}


def _shards(made: dict[str, Any]) -> Any:
    return [(shard["sha256"], shard["rows"]) for shard in made["shards"]]


def _notify(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


if __name__ == "__main__":
    typer.run(main)
