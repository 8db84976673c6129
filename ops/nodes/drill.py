"""`python -m ops.nodes.drill`: machines lose their power under load, and the figures of it are printed.

Needs root, iproute2 and keepalived. Everything lives in a temporary directory and in namespaces.
"""

import asyncio
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from ops.console.command_runner import run
from ops.nodes.nodes_drill import CLUSTER, DATA, SERVING, NodesDrill, NodesPlan
from ops.nodes.nodes_report import described
from service.errors import RunError, UsageError


def main(
    *,
    data: Annotated[str, typer.Option("--data", help="What the served model is trained on.")] = "demo:2000x1000x60000",
    rate: Annotated[float, typer.Option("--rate", min=1, help="Requests per second.")] = 100.0,
    victims: Annotated[
        str | None,
        typer.Option(
            "--victims", help="The nodes that lose their power, in this order, comma separated; all by default."
        ),
    ] = None,
    cluster: Annotated[bool, typer.Option("--redis-cluster", help="A Redis Cluster on three nodes.")] = False,
    cut: Annotated[bool, typer.Option("--cut", help="Cut the nodes off the network instead; they run on.")] = False,
    quiet_s: Annotated[float, typer.Option("--quiet", min=0, help="Seconds of load between losses.")] = 8.0,
    off_s: Annotated[float, typer.Option("--off", min=1, help="Seconds that a node is off.")] = 15.0,
    replicas: Annotated[int, typer.Option("--replicas", min=1, help="Replicas of each of the two nodes.")] = 2,
    folder: Annotated[
        Path | None,
        typer.Option("--folder", help="An empty directory for the nodes' disks and logs, which stay there."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The figures as JSON.")] = False,
) -> int:
    """Take the power of whole nodes under load, and compare the archive with all that was acknowledged."""
    redis = CLUSTER if cluster else DATA
    chosen = tuple(name.strip() for name in (victims or ",".join((*SERVING, *redis))).split(",") if name.strip())
    if unknown := sorted(set(chosen) - {*SERVING, *redis}):
        raise UsageError(f"--victims: {unknown[0]!r} is none of {', '.join((*SERVING, *redis))}.")
    with tempfile.TemporaryDirectory(prefix="recollect-drill-") as training:
        print(f"Training on {data}.", flush=True)
        plan = NodesPlan(
            _trained(Path(training), data), rate, chosen, cut, quiet_s, off_s, replicas, redis=redis, folder=folder
        )
        report = asyncio.run(NodesDrill(plan, lambda sentence: print(sentence, flush=True)).run())
    print(json.dumps(dataclasses.asdict(report)) if as_json else described(report))
    return 0 if report.kept else 1


def _trained(folder: Path, data: str) -> Path:
    """Train a model and activate it; returns the models directory."""
    environ = {**os.environ, "RECOLLECT_HOME": str(folder)}
    argv = [sys.executable, "-m", "ops", "train", "--data", data, "--force"]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RunError(f"The model could not be trained: {done.stderr.strip().splitlines()[-1]}")
    return folder / "models"


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(main)
    sys.exit(run(app, sys.argv[1:], name="python -m ops.nodes.drill"))
