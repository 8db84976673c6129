"""`recollect models`: the published versions, what each is, and which one is served."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.table import Table

from service.config import Config
from service.errors import ModelError, ModelMissing
from service.models import artefact
from service.publication import activate as activate_version


def show_all(config: Config, *, as_json: bool) -> int:
    """List every version, oldest first, the active one marked."""
    active = artefact.active_version(config.models_dir)
    rows = [_row(config, version, active) for version in artefact.versions(config.models_dir)]
    if as_json:
        print(json.dumps(rows))
        return 0
    if not rows:
        print(f"No model is published in {config.models_dir}; make one with: recollect train --data PATH")
        return 0
    table = Table(box=None, header_style="bold")
    for heading in ("", "version", "created", "users", "items", "rmse", "data"):
        table.add_column(heading)
    for row in rows:
        mark = "*" if row["active"] else ""
        table.add_row(
            mark,
            row["version"],
            *(_text(row.get(name)) for name in ("created", "n_users", "n_items", "rmse", "source")),
        )
    Console(soft_wrap=True).print(table)
    return 0


def show(config: Config, version: str | None) -> int:
    """Print one manifest; the active version's where none is named."""
    name = version or artefact.active_version(config.models_dir)
    if name is None:
        raise ModelMissing(f"no model is active in {config.models_dir}; name one, or see: recollect models list")
    print(json.dumps(artefact.read_manifest(config.models_dir / name), indent=2, ensure_ascii=False))
    return 0


def activate(config: Config, version: str, *, as_json: bool) -> int:
    """Check a version and make running replicas serve it."""
    before = _active_or_none(config)
    activate_version(config.models_dir, version)
    if as_json:
        print(json.dumps({"active": version, "before": before}))
    else:
        print(
            f"{version} is active; running replicas swap it in within a second."
            + (f" Before: {before}." if before else "")
        )
    return 0


def _active_or_none(config: Config) -> str | None:
    try:
        return artefact.active_version(config.models_dir)
    except ModelError:
        # A broken ACTIVE is what an activation mends.
        return None


def _row(config: Config, version: str, active: str | None) -> dict[str, Any]:
    row: dict[str, Any] = {"version": version, "active": version == active}
    try:
        manifest = artefact.read_manifest(config.models_dir / version)
    except ModelError as error:
        return {**row, "refused": str(error)}
    row |= {name: manifest.get(name) for name in ("algorithm", "created", "n_users", "n_items", "measures")}
    row["rmse"] = (manifest.get("measures") or {}).get("rmse")
    row["source"] = (manifest.get("data") or {}).get("source")
    return row


def _text(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
