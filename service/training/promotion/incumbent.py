"""The active model as a competitor of a new one, and the rating scale of earlier models."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from service.config import Config
from service.errors import ModelError, RecollectError
from service.models.files import active_model, artefact, versions
from service.models.history.rating_scale import RatingScale
from service.models.snapshot import ModelSnapshot
from service.models.vocabulary import Vocabulary
from service.training.algorithms import registry
from service.training.data.data_request import SEPARATOR, DataRequest, as_request
from service.training.data.formats import archived_events
from service.training.data.scale_detection import SettledScale, settle
from service.training.evaluation.leakage import is_member
from service.training.evaluation.measures.prediction_error import rmse
from service.training.interactions import Float64, Int64, Interactions
from service.training.promotion.verdict import DirectComparison, HoldOutResult
from service.training.training_need import is_demo


@dataclass(frozen=True)
class Incumbent:
    """The active model, with its manifest."""

    snapshot: ModelSnapshot

    def recorded(self, name: Literal["rmse", "ndcg@10"]) -> HoldOutResult | None:
        """Return a measure on its own hold-out; None if none was recorded."""
        measures = self.snapshot.manifest.get("measures")
        if not isinstance(measures, dict):
            return None
        value, simple = measures.get(name), (measures.get("baseline") or {}).get(name)
        if not isinstance(value, float) or not math.isfinite(value):
            return None
        return HoldOutResult(value, simple if isinstance(simple, float) else None)

    def unlearnt(self, hidden: Interactions) -> Int64:
        """Return the positions of interactions that it has not learnt, of users whom it knows: int64, ascending."""
        snapshot = self.snapshot
        users = rows_in(snapshot.users, hidden.users)[hidden.user_rows]
        items = rows_in(snapshot.items, hidden.items)[hidden.item_rows]
        n_items = len(snapshot.items)
        learnt = np.repeat(np.arange(len(snapshot.users), dtype=np.int64), np.diff(snapshot.history.indptr))
        learnt = learnt * n_items + snapshot.history.indices
        is_learnt = (items >= 0) & is_member(users.astype(np.int64) * n_items + items, learnt)
        return np.flatnonzero((users >= 0) & ~is_learnt)

    def compare_errors(self, hidden: Interactions, predicted: Float64) -> DirectComparison | None:
        """Compare it with a new model on held-out ratings that neither has learnt.

        Args:
            hidden: The hold-out of the new model.
            predicted: Float64 (n,), the predictions of the new model.

        Returns:
            Both errors; None if it predicts no ratings, or no such rating is of a user and an item of both models.
        """
        snapshot = self.snapshot
        try:
            algorithm = registry.get(snapshot.algorithm)
        except RecollectError:
            return None
        if algorithm.kind != "rating":
            return None
        items = rows_in(snapshot.items, hidden.items)[hidden.item_rows]
        places = self.unlearnt(hidden)
        places = places[items[places] >= 0]
        if not places.size:
            return None
        users = rows_in(snapshot.users, hidden.users)[hidden.user_rows]
        own = algorithm.predict(snapshot, users[places], items[places])
        ratings = hidden.ratings[places]
        return DirectComparison(rmse(predicted[places], ratings), rmse(own, ratings), int(places.size))


def active(models_dir: Path) -> Incumbent | None:
    """Return the active model; None if there is none, it fails its checks, or it is of the demo data."""
    try:
        version = active_model.version(models_dir, "ranking")
        snapshot = None if version is None else artefact.load(models_dir / version)
    except (ModelError, OSError):
        return None
    return None if snapshot is None or all(_is_demo(snapshot.manifest)) else Incumbent(snapshot)


def on_scale(
    config: Config, source: str | DataRequest, data: Interactions, declared: RatingScale | None = None
) -> tuple[Interactions, SettledScale]:
    """Put data on the scale of `declared`, of the settings, of an earlier model, or its own, see `scale_detection`."""
    scale = declared or config.models.declared_scale
    known = learnt_scale(config.models_dir) if scale is None else SettledScale(scale, "declared")
    is_archive = any(archived_events.parse_spec(each) is not None for each in as_request(source).sources)
    return settle(data, known, is_archive=is_archive, values=config.event_values)


def learnt_scale(models_dir: Path) -> SettledScale | None:
    """Return the rating scale of the active model, or of the newest model with a reliable one.

    The scale of a model of the demo data, or of an archive whose scale was estimated, is not reliable.
    """
    try:
        newest = versions.published(models_dir)[::-1]
        active_version = active_model.version(models_dir)
    except ModelError:
        return None
    for version in dict.fromkeys([*([active_version] if active_version in newest else []), *newest]):
        try:
            manifest = artefact.read_manifest(models_dir / version)
        except ModelError:
            continue
        scale = None if any(_is_demo(manifest)) else _scale_of(manifest.get("data"))
        if scale is not None:
            return SettledScale(scale, "model")
    return None


def _scale_of(described: Any) -> RatingScale | None:
    if not isinstance(described, dict):
        return None
    low, high = described.get("rating_min"), described.get("rating_max")
    if not isinstance(low, int | float) or not isinstance(high, int | float) or not low < high:
        return None
    if described.get("rated_share", 1) == 0:
        return None
    # Older manifests do not record the origin; archives were then taken as they were.
    origin = described.get("scale_from", "bulk" if described.get("source") == archived_events.NAME else "data")
    return None if origin == "bulk" else RatingScale(float(low), float(high))


def _is_demo(manifest: dict[str, Any]) -> list[bool]:
    """Return for each source of a model whether it is demo data; a set of unknown origin is one of no demo data."""
    described = manifest.get("data")
    source = described.get("source") if isinstance(described, dict) else None
    return [is_demo(part) for part in source.split(SEPARATOR)] if isinstance(source, str) else [False]


def rows_in(known: Vocabulary, ids: Vocabulary) -> NDArray[np.int32]:
    """Return the row of each id in another vocabulary, int32 (len(ids),); -1 for none."""
    return np.fromiter((known.row_of.get(id_, -1) for id_ in ids.id_of), np.int32, count=len(ids))
