"""One training, from data to a published version.

Invariants: the published model is fitted on all data, with the settings and the seed of the measured one. A version
appears only when it is complete (`service.models.files.artefact`). Interactions of a user before an erasure are not
learnt, and a user erased during the training is not published.
"""

import dataclasses
import errno
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from service.config import Config
from service.errors import RunError, UsageError
from service.executors.executor import executor_in_use
from service.models.files import artefact
from service.models.files.erased_users import ErasedUsers, keep_permanently, user_keys, without_users
from service.models.history.rating_scale import RatingScale
from service.models.publication import publication
from service.models.publication.index_building import IndexRules
from service.models.snapshot import ModelSnapshot
from service.training.algorithms.registry import DISTRIBUTED, ConfiguredAlgorithm
from service.training.checkpoints.folder import checkpoints_in
from service.training.data import datasets
from service.training.data.data_request import DataRequest, as_request
from service.training.data.erased_interactions import without_erased
from service.training.data.scale_detection import noted
from service.training.deep.onnx.files import with_onnx_files
from service.training.evaluation.comparison import describe_dataset
from service.training.hold_out.split import hold_out
from service.training.interactions import Interactions, Progress, no_progress
from service.training.popularity.counts import decayed
from service.training.popularity.half_life import best_half_life_days
from service.training.popularity.user_clusters import user_clusters
from service.training.promotion import incumbent
from service.training.promotion.report import report
from service.training.selection import measured_choice
from service.training.selection.candidates import AUTO
from service.training.selection.selection import budget_for
from service.training.suitability import require_suitable
from telemetry.pseudonym import Pseudonymiser


def train(
    config: Config,
    *,
    data: str | DataRequest,
    algorithm: str | None = None,
    settings: Sequence[str] = (),
    scale: RatingScale | None = None,
    seed: int = 0,
    activate: bool | None = None,
    budget_s: float | None = None,
    progress: Progress = no_progress,
    on_read: Callable[[Interactions], None] | None = None,
) -> dict[str, Any]:
    """Read, choose an algorithm, measure on a hold-out, fit on everything, publish and, unless it is worse, activate.

    Args:
        config: The model store, the declared rating scale, the time for `auto`, and the half-life of popularity.
        data: The source, see `datasets.read`.
        algorithm: A name; None or "auto" for the one whose lists are best, see `selection`.
        settings: `key=value` texts, with a name only.
        scale: The rating scale; None for the declared one, or that of `data.scale_detection.settle`.
        seed: The seed of the generators; the same seed and data give the same model.
        activate: True to activate the new version, False not to; None to activate it unless its lists lose to
            popularity, or it is much worse than the active one, see `promotion`.
        budget_s: How long the candidates of `auto` may take; None for the setting, less for small data.
        on_read: Called with the data on its scale, before the fit.

    Returns:
        The published manifest; `measures.held_back` is the reason not to activate the version, or None.

    Raises:
        UsageError: There is no such algorithm or setting, or the pseudonyms' key file cannot be used.
        DataError: The data is refused, or has no ratings and the algorithm predicts them.
        ModelRefused: The list of erased users cannot be read.
        RunError: The fit failed, or the model cannot be written, which is checked before the fit if possible.
    """
    name = None if algorithm == AUTO else algorithm
    # Settings are checked first, because reading may take minutes.
    named = _named(name, settings)
    pseudonyms = config.pseudonymiser()
    interactions = datasets.read(data, progress, pseudonyms)
    _require_writable(config.models_dir)
    erased_users = ErasedUsers.read(config.models_dir)
    erased = erased_users.erased_rows(interactions.users, pseudonyms)
    _keep_permanently(config.models_dir, interactions, erased, pseudonyms)
    requested_s = {row: at.requested_s for row, at in erased.items()}
    interactions = without_erased(interactions, requested_s)
    interactions, settled = incumbent.on_scale(config, data, interactions, scale)
    if named is not None and (note := require_suitable(named, interactions)) is not None:
        interactions = noted(interactions, note)
    if on_read is not None:
        on_read(interactions)
    # A training that was killed continues from its checkpoints when it is run again.
    with checkpoints_in(config.checkpoints_dir, config.models.checkpoint_interval_s):
        split_seed, measure_seed, fit_seed, cluster_seed = np.random.SeedSequence(seed).spawn(4)
        held_out = hold_out(interactions, np.random.default_rng(split_seed))
        most_s = config.models.selection_budget_s
        if named is not None:
            choice = measured_choice.of_named(interactions, held_out, named, measure_seed, progress)
        else:
            budget_s = budget_for(len(interactions), len(interactions.items), most_s) if budget_s is None else budget_s
            choice = measured_choice.of_best(interactions, held_out, budget_s, measure_seed, progress)
        candidate = choice.candidate
        snapshot = choice.fitted or candidate.algorithm.fit(
            interactions, candidate.config, np.random.default_rng(fit_seed), progress
        )
        half_life_days = config.models.popularity_half_life_days or best_half_life_days(interactions)
        popularity = decayed(interactions, half_life_days)
        records = interactions.catalogue.records(interactions.items.id_of)
        snapshot = dataclasses.replace(snapshot, popularity=popularity, item_records=records)
        snapshot = dataclasses.replace(
            snapshot, user_clusters=user_clusters(snapshot, np.random.default_rng(cluster_seed))
        )
        snapshot = with_onnx_files(snapshot)
        active = incumbent.active(config.models_dir)
        measures = report(
            candidate, held_out, choice.measured, active, limit_s=most_s, seed=measure_seed, others=choice.others()
        )
        described = describe_dataset(interactions)
        if interactions.report.files or len(as_request(data).sources) > 1:
            # A label, because paths of this machine do not belong into a manifest.
            described["source"] = as_request(data).label
        described |= {
            "scale_from": settled.origin,
            "seed": seed,
            "popularity_half_life_days": half_life_days if np.isfinite(half_life_days) else None,
        }

        def without_erased_since(snapshot: ModelSnapshot) -> ModelSnapshot:
            now = ErasedUsers.read(config.models_dir).erased_rows(snapshot.users, pseudonyms)
            before = erased_users.erased_rows(snapshot.users, pseudonyms)
            rows = [row for row, at in now.items() if before.get(row) != at]
            return without_users(snapshot, rows) if rows else snapshot

        try:
            version = publication.publish(
                config.models_dir,
                snapshot,
                data=described,
                measures=measures,
                selection=choice.as_json(algorithm or AUTO),
                index_rules=IndexRules(config.models.index_items, config.models.index_recall_floor),
                prepare=without_erased_since,
            )
        except OSError as error:
            raise _unpublishable(config.models_dir, error) from error
    if activate or (activate is None and measures["held_back"] is None):
        publication.activate(config.models_dir, version)
        publication.log_activation(config.security_dir, version, by="training")
    return artefact.read_manifest(config.models_dir / version)


def _keep_permanently(
    models_dir: Path, data: Interactions, erased_rows: Collection[int], pseudonyms: Pseudonymiser
) -> None:
    if erased_rows:
        try:
            keep_permanently(
                models_dir, {key for row in erased_rows for key in user_keys(data.users.id_of[row], pseudonyms)}
            )
        except OSError as error:
            raise _unpublishable(models_dir, error) from error


def _named(name: str | None, settings: Sequence[str]) -> ConfiguredAlgorithm | None:
    """Parse an algorithm and its settings; None without a name.

    Raises:
        UsageError: There is no such algorithm or setting, there are settings without a name, or the command has workers
            between which the algorithm cannot share the work.
    """
    if name is not None:
        named = ConfiguredAlgorithm.parse(name, settings)
        if executor_in_use() is not None and not named.is_distributed:
            raise UsageError(
                f"{name} is trained in one process; {AUTO} and these share the work between workers: "
                f"{', '.join(DISTRIBUTED)}."
            )
        return named
    if settings:
        raise UsageError(
            f"{settings[0]!r} is a setting of an algorithm: name it with --algorithm; {AUTO} fits each candidate with "
            "its own settings."
        )
    return None


def _require_writable(models_dir: Path) -> None:
    try:
        models_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise _unpublishable(models_dir, error) from error
    if not os.access(models_dir, os.W_OK | os.X_OK):
        raise _unpublishable(models_dir, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


def _unpublishable(models_dir: Path, error: OSError) -> RunError:
    return RunError(f"The model cannot be published in {models_dir}: {error.strerror or error}.")
