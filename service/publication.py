"""Makes a published version the active one, with the static lists that nginx serves when no replica answers.

Invariant: activations take turns, so that ACTIVE and the static lists name one model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from service import wire
from service.errors import ModelMissing, RunError
from service.models import artefact, files, scoring
from service.models.snapshot import ModelSnapshot

STATIC_RUNG: Final = "static"


def activate(models_dir: Path, version: str) -> ModelSnapshot:
    """Check a version, name it in ACTIVE, and write popular.json and popular.txt for it.

    Raises:
        ModelMissing: there is no such version.
        ModelRefused: it fails its checks; what was active stays.
        RunError: the directory of all versions cannot be written.
    """
    if not models_dir.is_dir():
        raise ModelMissing(f"there is no model {version!r} in {models_dir}")
    try:
        with files.exclusive(models_dir):
            snapshot = artefact.activate(models_dir, version)
            artefact.write_beside(models_dir, _static_lists(snapshot))
    except OSError as error:
        raise RunError(f"{version} cannot be activated in {models_dir}: {error.strerror or error}") from error
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
        "freshness": {"events_applied": 0, "as_of": snapshot.data_as_of},
        "degraded": STATIC_RUNG,
        "shortfall": wire.shortfall(wire.N_DEFAULT, len(ids[: wire.N_DEFAULT])),
    }
    return {"popular.json": wire.encode(answer), "popular.txt": wire.plain_list(ids)}
