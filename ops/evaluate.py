"""`recollect evaluate`: algorithms compared by cross-validation, as a table, plain lines or JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from ops.progress import Stages
from ops.train import complaints

if TYPE_CHECKING:
    from service.config import Config

_MEBIBYTE: Final = 1 << 20


def evaluate(
    config: Config, *, data: str, algorithms: Sequence[str], folds: int = 5, seed: int = 0, as_json: bool = False
) -> int:
    """Compare algorithms with their default settings on the same folds, and print how they did.

    Args:
        config: every setting; none matters here, it is what every verb is given.
        data: a path or a specification, see `service.training.datasets.read`.
        algorithms: their names.
        folds: how many.
        seed: decides the folds and everything random in the fits.
        as_json: print DESIGN's JSON object instead of a table.

    Returns:
        0.

    Raises:
        RecollectError: the input is refused, or a fit failed.
    """
    from service.training import datasets
    from service.training.algorithms.registry import parse_list
    from service.training.evaluation import cross_validate

    candidates = list(parse_list(algorithms))
    with Stages() as progress:
        interactions = datasets.read(data, progress)
        comparison = cross_validate(interactions, candidates, n_folds=folds, seed=seed, progress=progress)
    for line in complaints(interactions.report):
        print(line, file=sys.stderr)
    if as_json:
        print(json.dumps(comparison, ensure_ascii=False))
    elif sys.stdout.isatty():
        _print_table(comparison)
    else:
        for line in _lines(comparison):
            print(line)
    return 0


def _headline(comparison: dict[str, Any]) -> str:
    data, protocol = comparison["data"], comparison["protocol"]
    return (
        f"{data['source']}: {data['n_ratings']:,} ratings by {data['n_users']:,} users of {data['n_items']:,} items; "
        f"{protocol['folds']} random folds, seed {protocol['seed']}"
    )


def _row(result: dict[str, Any]) -> dict[str, str]:
    row = {"algorithm": result["algorithm"]}
    for name, measure in result["measures"].items():
        low, high = measure["ci95"]
        row[name] = f"{measure['mean']:.4f} ±{(high - low) / 2:.4f}"
    return row | {
        "fit_s": f"{result['fit_s']:.2f}",
        "predict_s": f"{result['predict_s']:.3f}",
        "model_mib": f"{result['model_bytes'] / _MEBIBYTE:.1f}",
        "peak_mib": f"{result['peak_bytes'] / _MEBIBYTE:.0f}",
    }


def _lines(comparison: dict[str, Any]) -> list[str]:
    rows = [_row(result) for result in comparison["results"]]
    return [_headline(comparison), *("  ".join(f"{name} {text}" for name, text in row.items()) for row in rows)]


def _print_table(comparison: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = [_row(result) for result in comparison["results"]]
    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)
    for name in rows[0]:
        table.add_column(name, justify="left" if name == "algorithm" else "right")
    for row in rows:
        table.add_row(*row.values())
    console = Console()
    console.print(Text(_headline(comparison)))
    console.print(table)
