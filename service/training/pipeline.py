"""One training, from a PATH to a published version.

Invariants: what is measured was not learnt from, and what is published was fitted on everything, with the same settings
and seed. Nothing of a training is seen before its version is whole (`service.models.artefact`). What a user did before
being erased is not learnt from, and a user erased meanwhile is not published.
"""

import contextlib
import dataclasses
import errno
import os
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.config import Config
from service.errors import ModelError, ModelRefused, RunError, UsageError
from service.models import active_model, artefact, publication, versions
from service.models.erased_users import ErasedUsers, keep, without_users
from service.models.rating_scale import RatingScale
from service.models.snapshot import ModelSnapshot
from service.training import memory_budget
from service.training.algorithms.registry import Candidate
from service.training.data import datasets
from service.training.data.data_request import DataRequest, as_request
from service.training.erased_interactions import without_erased
from service.training.evaluation import splits
from service.training.incumbent import Incumbent
from service.training.interactions import Interactions, Progress, no_progress
from service.training.popularity_counts import decayed
from telemetry.pseudonym import Pseudonymiser

HOLD_OUT_SHARE: Final = 0.1
ERRORS: Final = ("rmse", "mae")
LIST_MEASURES: Final = ("ndcg@10", "recall@20")
# Enough of them for two digits, and few enough that a million users take no longer.
_JUDGED_USERS: Final = 10_000
DEFAULT_DATA: Final = "demo"
# The newest versions, of which a sentence says whether they are intact.
_LOOKED_AT: Final = 5


def train(
    config: Config,
    *,
    data: str | DataRequest,
    algorithm: str | None = None,
    settings: Sequence[str] = (),
    scale: RatingScale | None = None,
    seed: int = 0,
    activate: bool | None = None,
    progress: Progress = no_progress,
    on_read: Callable[[Interactions], None] | None = None,
) -> dict[str, Any]:
    """Read, measure on a hold-out, fit on everything, publish and, unless the model is much worse, activate.

    Args:
        config: Where models are published, the declared rating scale, and the half-life of popularity.
        data: What to read, see `datasets.read`.
        algorithm: Its name; None for what suits the data, see `suitability.default_algorithm`.
        settings: `key=value` texts.
        scale: The rating scale; None for the one that the settings declare, or what `scale.settle` finds.
        seed: Decides everything random; the same seed and data give the same model.
        activate: True to serve the new version in any case, False never to; None to serve it unless it is much worse
            than the active one, see `replacing`.
        progress: Told of the stages "read", "measure" and "fit".
        on_read: Told of the data once it is read and on its scale, with what was noticed in its report.

    Returns:
        The published manifest; `measures.held_back` says why the version must not replace the active one, None if
        it may.

    Raises:
        UsageError: There is no such algorithm or setting, or the pseudonyms' key file cannot be used.
        DataError: The data is refused, or has no ratings and the algorithm predicts them.
        ModelRefused: The list of erased users cannot be read.
        RunError: The fit failed, or the model cannot be written, which is found out before the fit if possible.
    """
    # `up` imports this module to ask `needs_training`, and has no use for what a training needs.
    from service.training import incumbent
    from service.training.evaluation.comparison import describe_dataset

    # The settings are looked at before minutes are spent on reading.
    _check_settings(algorithm, settings)
    pseudonyms = config.pseudonymiser()
    interactions = datasets.read(data, progress)
    _require_writable(config.models_dir)
    erased_users = ErasedUsers.read(config.models_dir)
    listed = erased_users.rows(interactions.users, pseudonyms)
    _keep_listed(config.models_dir, interactions, listed, pseudonyms)
    interactions = without_erased(interactions, listed)
    interactions, settled = incumbent.on_scale(config, data, interactions, scale)
    candidate, interactions = _suitable(algorithm, settings, interactions)
    memory_budget.require(
        candidate.name, candidate.config, len(interactions), len(interactions.users), len(interactions.items)
    )
    if on_read is not None:
        on_read(interactions)
    split_seed, measure_seed, fit_seed = np.random.SeedSequence(seed).spawn(3)
    before = incumbent.active(config.models_dir)
    measures, fitted = _hold_out(interactions, candidate, before, split_seed, measure_seed, progress)
    snapshot = fitted or candidate.fit(interactions, candidate.config, np.random.default_rng(fit_seed), progress)
    popularity = decayed(interactions, config.models.popularity_half_life_days)
    snapshot = dataclasses.replace(snapshot, popularity=popularity)
    described = describe_dataset(interactions)
    if interactions.report.files:
        # A path of this machine says nothing elsewhere, and is nobody's business.
        described["source"] = as_request(data).label
    described |= {"scale_from": settled.origin, "seed": seed}

    def without_those_forgotten_since(snapshot: ModelSnapshot) -> ModelSnapshot:
        listed = ErasedUsers.read(config.models_dir).rows(snapshot.users, pseudonyms)
        known = erased_users.rows(snapshot.users, pseudonyms)
        rows = [row for row, time_s in listed.items() if known.get(row) != time_s]
        return without_users(snapshot, rows) if rows else snapshot

    try:
        version = publication.publish(
            config.models_dir, snapshot, data=described, measures=measures, prepare=without_those_forgotten_since
        )
    except OSError as error:
        raise _unpublishable(config.models_dir, error) from error
    if activate or (activate is None and measures["held_back"] is None):
        publication.activate(config.models_dir, version)
        publication.log_activation(config.security_dir, version, by="training")
    return artefact.read_manifest(config.models_dir / version)


def _keep_listed(models_dir: Path, data: Interactions, listed: Collection[int], pseudonyms: Pseudonymiser) -> None:
    if listed:
        try:
            keep(models_dir, data.users, listed, pseudonyms)
        except OSError as error:
            raise _unpublishable(models_dir, error) from error


def _check_settings(algorithm: str | None, settings: Sequence[str]) -> None:
    """Parse an algorithm and its settings; without a name they must be those of an algorithm that may be chosen.

    Raises:
        UsageError: There is no such algorithm or setting.
    """
    from service.training.algorithms.registry import Candidate
    from service.training.suitability import FOR_LISTS, FOR_RATINGS

    if algorithm is not None:
        Candidate.parse(algorithm, settings)
    elif settings:
        try:
            Candidate.parse(FOR_RATINGS, settings)
        except UsageError:
            Candidate.parse(FOR_LISTS, settings)


def _suitable(algorithm: str | None, settings: Sequence[str], data: Interactions) -> tuple[Candidate, Interactions]:
    """Return the algorithm to fit, and the data with a note of what speaks against it or for which it was chosen.

    Raises:
        DataError: The algorithm predicts ratings, and there are none.
        UsageError: A setting is not one of the chosen algorithm's.
    """
    from service.training.algorithms.registry import Candidate
    from service.training.scale_detection import noted
    from service.training.suitability import default_algorithm, require_suitable, why_not_ratings

    name = algorithm or default_algorithm(data)
    candidate = Candidate.parse(name, settings)
    if algorithm is not None:
        note = require_suitable(candidate, data)
    else:
        why = why_not_ratings(data)
        note = None if why is None else f"{data.report.source} {why}, so that the model is one that ranks: {name}."
    return candidate, data if note is None else noted(data, note)


def needs_training(config: Config, data: str | DataRequest | None) -> DataRequest | None:
    """Return what `up` has to train on before it can serve; None if the active model will do.

    The demo data stand in only where there is no model at all: they must not take the place of one that was published
    and cannot be served now.

    Args:
        config: Where models are published.
        data: What the operator asks to serve; None for whatever there is.

    Raises:
        DataError: `data` is not there or cannot be read.
        ModelRefused: Nothing was asked for, and what is published cannot be served; says why, and what can be. Or the
            model store hangs.
    """
    wanted = None if data is None else datasets.fingerprint(data)
    return active_model.within_timeout(
        lambda: _needed(config, data, wanted), config.models_dir, config.models.load_timeout_s
    )


def _needed(config: Config, data: str | DataRequest | None, wanted: str | None) -> DataRequest | None:
    fault: str | None = None
    active: dict[str, Any] | None = None
    try:
        version = active_model.version(config.models_dir)
        active = None if version is None else artefact.load(config.models_dir / version).manifest
    except ModelError as error:
        fault = f"the active model cannot be served: {str(error).rstrip('.')}"
    if active is None:
        if data is not None:
            return as_request(data)
        published = versions.published(config.models_dir)
        if published and fault is None:
            fault = f"no model is active in {config.models_dir}"
        if fault is not None:
            raise ModelRefused(f"{fault}; {_way_out(config.models_dir, published)}")
        return as_request(DEFAULT_DATA)
    described = active.get("data")
    trained_on = described.get("fingerprint") if isinstance(described, dict) else None
    return None if data is None or wanted == trained_on else as_request(data)


def _way_out(models_dir: Path, published: Sequence[str]) -> str:
    """Say which of the published versions can be served, newest first, and how."""
    intact: list[str] = []
    for version in reversed(published[-_LOOKED_AT:]):
        with contextlib.suppress(ModelError):
            artefact.load(models_dir / version)
            intact.append(version)
    if not intact:
        return "no other version is intact: publish one with `recollect train --data PATH`"
    are = "this version is intact" if len(intact) == 1 else "these versions are intact, the newest first"
    return f"{are}: {', '.join(intact)}; serve one with `recollect models activate VERSION`"


def _require_writable(models_dir: Path) -> None:
    try:
        models_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise _unpublishable(models_dir, error) from error
    if not os.access(models_dir, os.W_OK | os.X_OK):
        raise _unpublishable(models_dir, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


def _unpublishable(models_dir: Path, error: OSError) -> RunError:
    return RunError(f"the model cannot be published in {models_dir}: {error.strerror or error}")


def _hold_out(
    data: Interactions,
    candidate: Candidate,
    before: Incumbent | None,
    split_seed: np.random.SeedSequence,
    fit_seed: np.random.SeedSequence,
    progress: Progress,
) -> tuple[dict[str, Any], ModelSnapshot | None]:
    """Fit on most of the data and measure on the rest; what cannot be measured is null, with the reason.

    Returns:
        The measures; and the model of all data, where the algorithm can be measured without another fit.
    """
    from service.training.evaluation import measurement, top_n_lists

    split = splits.hold_out(len(data), HOLD_OUT_SHARE, np.random.default_rng(split_seed))
    measures: dict[str, Any] = dict.fromkeys((*ERRORS, *LIST_MEASURES))
    if split is None:
        note = "too few ratings to set any aside"
        holdout: dict[str, Any] = {"share": HOLD_OUT_SHARE, "n": 0, "note": note}
        return {**measures, "baseline": None, "held_back": None, "holdout": holdout}, None
    train, hidden = (data.take(side) for side in split)

    def measuring(_: str, done: int, total: int) -> None:
        progress("measure", done, total)

    holdout = {"share": HOLD_OUT_SHARE, "n": len(hidden)}
    rng = np.random.default_rng(fit_seed)
    whole, predicted = None, None
    if candidate.fit_measured is not None:
        whole, listed = candidate.fit_measured(data, split[1], candidate.config, rng, progress)
        progress("measure", 0, 1)
        holdout["note"] = "each user's list is that of a model without that user's held-out interactions"
    else:
        snapshot = candidate.fit(train, candidate.config, rng, measuring)
        listed = partial(top_n_lists.top_n_lists, snapshot)
        # Errors of what everyone rated the same say nothing.
        if candidate.kind == "rating" and not data.all_equal:
            predicted = candidate.predict(snapshot, hidden.user_rows, hidden.item_rows)
    wanted = LIST_MEASURES if predicted is None else (*ERRORS, *LIST_MEASURES)
    reached = measurement.measure_fitted(listed, predicted, train, hidden, measures=wanted, most_users=_JUDGED_USERS)
    measures |= {name: value if np.isfinite(value) else None for name, value in reached.items()}
    if whole is not None:
        progress("measure", 1, 1)
    simple = _simple(candidate, train, hidden)
    held_back = None if before is None else _held_back(before, candidate, measures, simple, hidden, predicted)
    return {**measures, "baseline": simple, "held_back": held_back, "holdout": holdout}, whole


def _simple(candidate: Candidate, train: Interactions, hidden: Interactions) -> dict[str, float]:
    """Measure what a model should do better than: for ratings their mean, for lists those by popularity."""
    from service.training.algorithms.registry import Candidate
    from service.training.evaluation import measurement
    from service.training.evaluation.measures.prediction_error import rmse

    popularity = Candidate.parse("popularity")
    simple = measurement.fit_and_measure(
        popularity, train, hidden, np.random.default_rng(0), measures=("ndcg@10",), most_users=_JUDGED_USERS
    )
    if candidate.kind == "rating":
        mean = np.full(len(hidden), train.ratings.mean(dtype=np.float64))
        simple["rmse"] = float(rmse(mean, hidden.ratings))
    return simple


def _held_back(
    before: Incumbent,
    candidate: Candidate,
    measures: dict[str, Any],
    simple: dict[str, float],
    hidden: Interactions,
    predicted: NDArray[np.float64] | None,
) -> str | None:
    from service.training.promotion import Reached, much_worse

    name = "rmse" if candidate.kind == "rating" else "ndcg@10"
    if measures[name] is None:
        return None
    return much_worse(
        candidate.kind,
        Reached(measures[name], simple[name]),
        len(hidden),
        active=before.snapshot.version,
        recorded=before.recorded(candidate.kind),
        direct=None if predicted is None else before.direct(hidden, predicted),
    )
