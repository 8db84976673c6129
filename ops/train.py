"""`recollect train`: from data to a published, active model, with what was met on the way."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ops.progress import Stages
from service.training import pipeline

if TYPE_CHECKING:
    from service.config import Config
    from service.training.interactions import Interactions, ReadReport


def train(
    config: Config,
    *,
    data: str,
    algorithm: str = "svd",
    settings: Sequence[str] = (),
    seed: int = 0,
    activate: bool = True,
    threads: int = 0,
    as_json: bool = False,
) -> int:
    """Train, publish and activate a model; print a summary, or its manifest as JSON.

    Args:
        config: where models are published.
        data: a path or a specification, see `service.training.data.datasets.read`.
        algorithm: its name.
        settings: `key=value` texts.
        seed: decides everything random.
        activate: whether the new version is to be served.
        threads: how many cores to use at most; 0 for all.
        as_json: print the manifest instead of the summary.

    Returns:
        0.

    Raises:
        RecollectError: the input is refused, or the run failed.
    """
    from service.training.algorithms.threads import limit

    started_s = time.monotonic()
    read: list[Interactions] = []
    with Stages() as progress, limit(threads):
        manifest = pipeline.train(
            config,
            data=data,
            algorithm=algorithm,
            settings=settings,
            seed=seed,
            activate=activate,
            progress=progress,
            on_read=read.append,
        )
    for line in complaints(read[0].report):
        print(line, file=sys.stderr)
    if as_json:
        print(json.dumps(manifest, indent=2, ensure_ascii=False))
        return 0
    for line in _summary(manifest, is_active=activate, took_s=time.monotonic() - started_s):
        print(line)
    return 0


def complaints(report: ReadReport) -> list[str]:
    """Return one line for each thing in the data that a person should know of."""
    lines: list[str] = []
    if report.n_bad_rows:
        are = "is bad and was" if report.n_bad_rows == 1 else "are bad and were"
        lines.append(f"{report.n_bad_rows:,} of {report.n_rows:,} rows {are} left out, such as:")
        lines += [f"  {example}" for example in report.bad_examples]
    if report.n_duplicates:
        rows = "row was" if report.n_duplicates == 1 else "rows were"
        lines.append(f"{report.n_duplicates:,} {rows} left out for a later one of the same user and item.")
    return [*lines, *report.notes]


def _summary(manifest: dict[str, Any], *, is_active: bool, took_s: float) -> list[str]:
    data, measures = manifest["data"], manifest["measures"]
    reached = ", ".join(
        f"{name if '@' in name else name.upper()} {value:.4f}"
        for name, value in measures.items()
        if isinstance(value, float)
    )
    measured = (
        f"On {measures['holdout']['n']:,} ratings held out: {reached}."
        if reached
        else "Not measured: there are too few ratings to hold any out."
    )
    state = (
        "It is active; running replicas swap it in within a second."
        if is_active
        else f"It is not active; activate it with: recollect models activate {manifest['version']}"
    )
    counts = f"{data['n_ratings']:,} ratings by {data['n_users']:,} users of {data['n_items']:,} items"
    return [
        f"Read {data['source']}: {counts}.",
        measured,
        f"Published {manifest['version']} after {took_s:.1f} s. {state}",
    ]
