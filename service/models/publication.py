"""Makes a published version the active one, with the static lists that nginx serves when no replica answers.

Invariant: activations take turns, so that ACTIVE and the static lists name one model, and ACTIVE never names a version
that is gone.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from service.api import wire
from service.errors import ModelMissing, RunError
from service.models import artefact, published_files, scoring
from service.models.snapshot import ModelSnapshot
from service.security import security_log

STATIC_RUNG: Final = "static"


def activate(models_dir: Path, version: str) -> ModelSnapshot:
    """Check a version, name it in ACTIVE, and write popular.json and popular.txt for it.

    Raises:
        ModelMissing: There is no such version.
        ModelRefused: It fails its checks; what was active stays.
        RunError: The directory of all versions cannot be written.
    """
    if not models_dir.is_dir():
        raise ModelMissing(f"there is no model {version!r} in {models_dir}")
    try:
        with published_files.exclusive(models_dir):
            return _activate(models_dir, version)
    except OSError as error:
        raise RunError(f"{version} cannot be activated in {models_dir}: {error.strerror or error}") from error


def account(security_dir: Path, version: str, *, by: str) -> None:
    """Enter an activation in the security log.

    Args:
        security_dir: Where the log is.
        version: What is active now.
        by: The process or command that activated it.

    Raises:
        RunError: The log cannot be written; the version is active all the same.
    """
    try:
        security_log.append(security_dir, [security_log.entry("activate", by=by, key=None, model=version)])
    except OSError as error:
        raise RunError(
            f"{version} is active, but the security log in {security_dir} cannot be written: {error.strerror or error}"
        ) from error


def supersede(
    models_dir: Path,
    version: str,
    change: Callable[[ModelSnapshot], ModelSnapshot],
    why: str,
    before_activation: Callable[[str], None] = lambda _copy: None,
) -> str:
    """Put a changed copy in a version's place: it is published, active if the version was, and the version removed.

    Killed anywhere, it leaves whole versions, and goes on from there when it is called again. A replica that serves the
    version keeps what it has mapped until it sees the copy.

    Args:
        models_dir: The directory of all versions.
        version: The one that goes.
        change: Makes the copy, from the version with its manifest.
        why: The change, for people.
        before_activation: Told of the copy if it is to be the active one; what it raises stops the activation.

    Returns:
        The copy, which may be one that an earlier attempt made.

    Raises:
        ModelMissing: There is no such version.
        ModelRefused: It, its copy or ACTIVE fails its checks; nothing is removed.
        OSError: The directory of all versions cannot be written.
    """
    with published_files.exclusive(models_dir):
        copy = artefact.copies(models_dir).get(version)
        if copy is None:
            copy = artefact.derive(models_dir, change(artefact.load(models_dir / version)), why)
        if artefact.active_version(models_dir) == version:
            before_activation(copy)
            _activate(models_dir, copy)
        else:
            artefact.load(models_dir / copy)
        published_files.remove_directory(models_dir / version)
    return copy


def _activate(models_dir: Path, version: str) -> ModelSnapshot:
    snapshot = artefact.activate(models_dir, version)
    artefact.write_beside(models_dir, _static_lists(snapshot))
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
        "freshness": {"as_of": snapshot.data_as_of},
        "degraded": STATIC_RUNG,
        "shortfall": wire.shortfall(wire.N_DEFAULT, len(ids[: wire.N_DEFAULT])),
    }
    return {"popular.json": wire.encode(answer), "popular.txt": wire.plain_list(ids)}
