"""`recollect models`: list and show the published versions, and activate one."""

import json
import os
import sys
from typing import Annotated, Any, Final, TypeAlias

import typer

from ops.console.command_runner import NOT_ACTIVATED
from ops.console.table import table
from ops.console.terminal import print_error
from ops.options.shared_options import JsonOption
from service.config import Config, from_env
from service.errors import ModelError, ModelMissing
from service.models.embedding_space import embedding_space
from service.models.files import active_model, artefact, versions
from service.models.publication.activation import reason_against
from service.models.publication.publication import activate as activate_version
from service.models.publication.publication import log_activation
from service.models.roles import SEPARATE, Role

RoleOption: TypeAlias = Annotated[
    Role, typer.Option("--role", help="Only for replicas of one role, which serves another version than the other.")
]

app = typer.Typer(help="The published models.", no_args_is_help=True, rich_markup_mode=None)

_COLUMNS: Final = {
    "version": "version",
    "users": "n_users",
    "items": "n_items",
    "rmse": "rmse",
    "ndcg@10": "ndcg@10",
    "data": "source",
}


@app.command("list")
def list_command(*, as_json: JsonOption = False) -> int:
    """List the published versions, oldest first."""
    return show_all(from_env(os.environ), as_json=as_json)


@app.command("show")
def show_command(
    version: Annotated[str | None, typer.Argument(help="By default the active one.")] = None,
    *,
    _as_json: Annotated[bool, typer.Option("--json", help="Changes nothing: show always prints JSON.")] = False,
) -> int:
    """Print a version's manifest as JSON."""
    return show(from_env(os.environ), version)


@app.command("activate")
def activate_command(
    version: Annotated[str, typer.Argument(help="An older one is the rollback.")],
    *,
    force: Annotated[
        bool, typer.Option("--force", help="Also one whose lists lose to popularity, or that was held back.")
    ] = False,
    role: RoleOption = "all",
    as_json: JsonOption = False,
) -> int:
    """Serve another version; the status is 3 if there is a reason not to: its lists, its training, or its role."""
    return activate(from_env(os.environ), version, role=role, force=force, as_json=as_json)


def show_all(config: Config, *, as_json: bool) -> int:
    """List every version, oldest first, and mark the active ones."""
    active = _active(config)
    rows = [_row(config, version, active) for version in versions.published(config.models_dir)]
    if as_json:
        print(json.dumps(rows, ensure_ascii=False))
        return 0
    if not rows:
        print(f"No model is published in {config.models_dir}; make one with: recollect train --data PATH.")
        return 0
    # Without separate models there is nothing to tell.
    columns = ({"version": "version", "role": "roles"} if len(active) > 1 else {}) | _COLUMNS
    cells = [[_text(row.get(name)) for name in columns.values()] for row in map(_marked, rows)]
    print(table(list(columns), cells, left=range(len(columns))))
    return 0


def show(config: Config, version: str | None) -> int:
    """Print the manifest of a version, by default the active one."""
    name = active_model.version(config.models_dir) if version is None else version
    if name is None:
        raise ModelMissing(f"No model is active in {config.models_dir}; name one, or see: recollect models list.")
    manifest = artefact.read_manifest(versions.directory_of(config.models_dir, name))
    print(json.dumps(manifest, indent=2, ensure_ascii=False))
    return 0


def activate(config: Config, version: str, *, role: Role = "all", force: bool, as_json: bool) -> int:
    """Check a version and make it the active one of a role, or of all, unless there is a reason not to."""
    before = _active_or_none(config, role)
    if not force and version != before and (reason := _reason_against(config, version, role)) is not None:
        print_error(f"{version} is not activated: {reason}. Activate it in any case with --force.")
        return NOT_ACTIVATED
    activate_version(config.models_dir, version, role)
    log_activation(config.security_dir, version, by="recollect models activate", role=role)
    if as_json:
        print(json.dumps({"active": version, "before": before} | ({} if role == "all" else {"role": role})))
    else:
        where = "" if role == "all" else f" for the role {role}"
        print(
            f"{version} is active{where}; running replicas swap it in within a second."
            + (f" Before: {before}." if before else "")
        )
    return 0


def _reason_against(config: Config, version: str, role: Role) -> str | None:
    try:
        manifest = artefact.read_manifest(versions.directory_of(config.models_dir, version))
    except ModelError:  # the activation says what is wrong
        return None
    reason = reason_against(manifest)
    if reason is None and role != "all":
        reason = _does_not_fit(config, manifest, role)
    return reason


def _does_not_fit(config: Config, manifest: dict[str, Any], role: Role) -> str | None:
    """Return why a version cannot work with the active version of the other role; None if it can."""
    space = embedding_space(manifest)
    if space is None:
        # Without factors the ranking role makes its lists by itself, and the other one has nothing to do.
        return "it has no factors, by which candidates are found" if role == "candidates" else None
    (other_role,) = (other for other in SEPARATE if other != role)
    try:
        other = active_model.version(config.models_dir, other_role)
        other_space = None if other is None else embedding_space(artefact.read_manifest(config.models_dir / other))
    except ModelError:
        return None
    if other is None or other_space == space:
        return None
    return (
        f"its embedding space is {space}, and that of {other}, which the role {other_role} serves, is {other_space},"
        " so that lists would be made from popular candidates; activate it for both roles, without --role"
    )


def _active(config: Config) -> dict[Role, str | None]:
    """Return the active version, and those that roles have of their own."""
    roles: list[Role] = ["all", *active_model.own_roles(config.models_dir)]
    return {role: _active_or_none(config, role) for role in roles}


def _active_or_none(config: Config, role: Role = "all") -> str | None:
    try:
        return active_model.version(config.models_dir, role)
    except ModelError as error:
        # An activation repairs a broken ACTIVE, so neither it nor the list may fail here.
        print(error, file=sys.stderr)
        return None


def _row(config: Config, version: str, active: dict[Role, str | None]) -> dict[str, Any]:
    # A role that has an active version of its own does not serve that of ACTIVE.
    serves = {role: active.get(role, active["all"]) == version for role in SEPARATE}
    row: dict[str, Any] = {"version": version, "active": any(serves.values())}
    if len(active) > 1:
        row["roles"] = ", ".join(role for role in SEPARATE if serves[role]) or None
    try:
        manifest = artefact.read_manifest(config.models_dir / version)
    except ModelError as error:
        return {**row, "refused": str(error)}
    row |= {name: manifest.get(name) for name in ("algorithm", "created", "n_users", "n_items", "measures")}
    for name, part, key in (
        ("rmse", "measures", "rmse"),
        ("ndcg@10", "measures", "ndcg@10"),
        ("source", "data", "source"),
    ):
        described = manifest.get(part)
        row[name] = described.get(key) if isinstance(described, dict) else None
    return row


def _marked(row: dict[str, Any]) -> dict[str, Any]:
    refused = {"source": f"refused: {row['refused']}"} if "refused" in row else {}
    return {**row, **refused, "version": f"{'*' if row['active'] else ' '} {row['version']}"}


def _text(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
