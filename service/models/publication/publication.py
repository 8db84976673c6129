"""Publishes models, and makes one the active model together with the static lists that nginx serves without replicas.

Invariant: one process at a time publishes or activates, so that the active version of the ranking role and the static
lists are one model, and no active version is one that is gone.
"""

import dataclasses
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from service.api import user_wire, wire
from service.api.shortfalls import shortfall
from service.errors import ModelError, ModelMissing, RunError
from service.models.files import active_model, artefact, published_files, versions
from service.models.publication import index_building
from service.models.publication.index_building import IndexRules
from service.models.ranking import scoring
from service.models.roles import Role
from service.models.snapshot import ModelSnapshot
from service.security import security_log
from telemetry.ids import rfc3339_ms

_STATIC: Final = "static"
_INDEX_RULES: Final = IndexRules()


def publish(
    models_dir: Path,
    snapshot: ModelSnapshot,
    *,
    data: dict[str, Any],
    measures: dict[str, Any],
    selection: dict[str, Any] | None = None,
    index_rules: IndexRules = _INDEX_RULES,
    prepare: Callable[[ModelSnapshot], ModelSnapshot] = lambda snapshot: snapshot,
) -> str:
    """Write a snapshot as a new version, atomically, without activating it.

    Args:
        data: The training data: counts and `fingerprint`.
        measures: Results on the hold-out, as plain JSON values.
        selection: How the algorithm was chosen, likewise.
        index_rules: When the model gets an index of its items.
        prepare: A last change to the model, which keeps its items, applied while no other process can publish.

    Returns:
        The new version.
    """
    models_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    built = index_building.build(snapshot, index_rules)
    snapshot = dataclasses.replace(snapshot, item_index=built.index)
    with published_files.exclusive(models_dir):
        snapshot = prepare(snapshot)
        now = datetime.now(UTC)
        version = versions.new_name(snapshot.algorithm, now)
        origin = {
            "measures": measures,
            "selection": selection,
            "data": data,
            "created": rfc3339_ms(now.timestamp()),
            "code_version": artefact.code_version(),
            "index": built.description,
        }
        artefact.write(models_dir / version, snapshot, origin)
    return version


def activate(models_dir: Path, version: str, role: Role = "all") -> ModelSnapshot:
    """Check a version, make it the active one of a role, or of all, and write popular.json and popular.txt for it.

    Raises:
        ModelMissing: There is no such version.
        ModelRefused: The version fails its checks; the active one stays.
        RunError: The directory of all versions cannot be written.
    """
    if not models_dir.is_dir():
        raise ModelMissing(f"There is no model {version!r} in {models_dir}.")
    try:
        with published_files.exclusive(models_dir):
            return _activate(models_dir, version, role, unites=role == "all")
    except OSError as error:
        raise RunError(f"{version} cannot be activated in {models_dir}: {error.strerror or error}.") from error


def log_activation(security_dir: Path, version: str, *, by: str, role: Role = "all") -> None:
    """Enter an activation in the security log.

    Args:
        by: The process or command that activated it.
        role: The role that it is active for.

    Raises:
        RunError: The log cannot be written; the version stays active.
    """
    about = {} if role == "all" else {"role": role}
    entry = security_log.new_entry("activate", by=by, key=None, model=version, **about)
    try:
        security_log.append(security_dir, [entry])
    except OSError as error:
        raise RunError(
            f"{version} is active, but the security log in {security_dir} cannot be written: {error.strerror or error}."
        ) from error


def supersede(
    models_dir: Path,
    version: str,
    change: Callable[[ModelSnapshot], ModelSnapshot],
    why: str,
    before_activation: Callable[[str], None] = lambda _copy: None,
) -> str:
    """Replace a version by a changed copy, which becomes active if the version was, and remove the version.

    A process killed at any point leaves complete versions; the next call continues. A replica keeps the version mapped
    until it loads the copy.

    Args:
        change: Makes the copy from the version, which has its manifest.
        why: The reason, recorded in the manifest.
        before_activation: Called with the copy's name before it becomes active; an exception stops the activation.

    Returns:
        The copy, possibly one that an earlier call wrote.

    Raises:
        ModelMissing: There is no such version.
        ModelRefused: It, its copy or ACTIVE fails its checks; nothing is removed.
        OSError: The directory of all versions cannot be written.
    """
    with published_files.exclusive(models_dir):
        copy = copies(models_dir).get(version)
        if copy is None:
            copy = _write_copy(models_dir, change(artefact.load(models_dir / version, with_onnx=True)), why)
        roles: list[Role] = ["all", *active_model.own_roles(models_dir)]
        serving = [role for role in roles if active_model.version(models_dir, role) == version]
        if serving:
            before_activation(copy)
            for role in serving:
                _activate(models_dir, copy, role)
        else:
            artefact.load(models_dir / copy)
        published_files.remove_directory(models_dir / version)
    return copy


def copies(models_dir: Path) -> dict[str, str]:
    """Return the versions that have a copy beside them, with the copy: a killed `supersede` leaves both.

    Raises:
        ModelRefused: The directory of all versions cannot be read.
    """
    found = versions.published(models_dir)
    pairs = {}
    for name in found:
        try:
            derived = artefact.read_manifest(models_dir / name).get("derived")
        except ModelError:
            continue
        if isinstance(derived, dict) and derived.get("from") in found:
            pairs[derived["from"]] = name
    return pairs


def _write_copy(models_dir: Path, snapshot: ModelSnapshot, why: str) -> str:
    """Write a changed copy of a version, with its origin in the manifest's `derived`; return the copy's name."""
    origin = snapshot.manifest
    source = str(origin["version"])
    derived = {
        "from": source,
        # Names the first training even when the versions in between are gone.
        "first": origin["derived"]["first"] if "derived" in origin else source,
        "at": rfc3339_ms(time.time()),
        "why": why,
    }
    # Older releases recorded no selection.
    names = ("measures", "data", "selection", "created", "code_version", "index")
    kept = {name: origin.get(name) for name in names}
    version = versions.copy_name(models_dir, source)
    artefact.write(models_dir / version, snapshot, {**kept, "derived": derived})
    return version


def _activate(models_dir: Path, version: str, role: Role, *, unites: bool = False) -> ModelSnapshot:
    snapshot = artefact.load(versions.directory_of(models_dir, version))
    active_model.replace(models_dir, version, role)
    if unites:
        active_model.unite(models_dir)
    # Lists are those of the ranking role.
    if role == "ranking" or (role == "all" and "ranking" not in active_model.own_roles(models_dir)):
        for name, content in _static_lists(snapshot).items():
            published_files.replace(models_dir / name, content)
    return snapshot


def _static_lists(snapshot: ModelSnapshot) -> dict[str, bytes]:
    ranking = scoring.popular(snapshot, wire.PLAIN_LIMIT)
    ids = [snapshot.items.id_of[row] for row in ranking.rows.tolist()]
    scores = ranking.scores.round(6).tolist()
    answer: wire.Recommendations = {
        "recommendation_id": None,
        "user_id": None,
        "model": snapshot.version,
        "items": [
            {"item_id": item_id, "score": score, "source": "popular"}
            for item_id, score in zip(ids[: wire.N_DEFAULT], scores, strict=False)
        ],
        "freshness": user_wire.freshness(snapshot.data_as_of, None),
        "degraded": _STATIC,
        "shortfall": shortfall(wire.N_DEFAULT, len(ids[: wire.N_DEFAULT]), "catalogue"),
        "next_page_token": None,
    }
    return {"popular.json": wire.encode(answer), "popular.txt": wire.plain_list(ids)}
