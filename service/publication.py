"""Makes a published version the active one, with the static lists that nginx serves when no replica answers."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from service import wire
from service.models import artefact, scoring
from service.models.snapshot import ModelSnapshot

STATIC_RUNG: Final = "static"


def activate(models_dir: Path, version: str) -> ModelSnapshot:
    """Check a version, name it in ACTIVE, and write popular.json and popular.txt for it.

    Raises:
        ModelMissing: there is no such version.
        ModelRefused: it fails its checks; what was active stays.
    """
    snapshot = artefact.activate(models_dir, version)
    ranking = scoring.popular(snapshot, wire.PLAIN_LIMIT)
    ids = [snapshot.items.id_of[row] for row in ranking.rows.tolist()]
    scores = ranking.scores.round(6).tolist()
    answer: wire.Recommendations = {
        "recommendation_id": None,
        "user_id": None,
        "model": version,
        "items": [
            {"item_id": item_id, "score": score, "source": "popular"}
            for item_id, score in zip(ids[: wire.N_DEFAULT], scores, strict=False)
        ],
        "freshness": {"events_applied": 0, "as_of": snapshot.data_as_of},
        "degraded": STATIC_RUNG,
        "shortfall": wire.shortfall(wire.N_DEFAULT, len(ids[: wire.N_DEFAULT])),
    }
    artefact.write_beside(models_dir, {"popular.json": wire.encode(answer), "popular.txt": wire.plain_list(ids)})
    return snapshot
