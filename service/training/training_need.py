"""Whether `up` must train before it can serve. Imports neither a compiler nor the parts of a training."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from service.config import Config
from service.errors import DataError, ModelError, ModelRefused, UsageError
from service.models.files import active_model, artefact, versions
from service.models.publication.activation import reason_against
from service.training.data import datasets, demo
from service.training.data.data_request import DataRequest, as_request

DEFAULT_DATA: Final = "demo"
# As in `selection.candidates`, which imports the registry.
AUTO: Final = "auto"
# The newest versions that are checked for an error message.
_CHECKED_VERSIONS: Final = 5


def needed_training(config: Config, data: str | DataRequest | None, algorithm: str | None = None) -> DataRequest | None:
    """Return the data to train on before serving; None if the active model suffices.

    Only an installation without any model trains on the demo data: they must not replace a published model that cannot
    be served now. A model of an older release whose lists lose to popularity is replaced if its data is known, which is
    the data that is asked for or the demo data: releases since do not activate such a model unless they are told to.

    Args:
        config: The model store.
        data: The data that the operator asked for; None for any model.
        algorithm: The algorithm that the operator asked for; None for any.

    Raises:
        DataError: `data` does not exist or cannot be read.
        UsageError: `algorithm` is not that of the active model, and `data` does not say what to train on.
        ModelRefused: `data` is None and no published model is active and intact, or the model store hangs.
    """
    fingerprint = None if data is None else datasets.fingerprint(data)
    return active_model.within_timeout(
        lambda: _needed(config, data, fingerprint, algorithm), config.models_dir, config.models.load_timeout_s
    )


def _needed(
    config: Config, data: str | DataRequest | None, fingerprint: str | None, algorithm: str | None
) -> DataRequest | None:
    fault: str | None = None
    active: dict[str, Any] | None = None
    try:
        version = active_model.version(config.models_dir)
        active = None if version is None else artefact.load(config.models_dir / version).manifest
    except ModelError as error:
        fault = f"The active model cannot be served: {str(error).rstrip('.')}"
    if active is None:
        if data is not None:
            return as_request(data)
        published = versions.published(config.models_dir)
        if published and fault is None:
            fault = f"No model is active in {config.models_dir}"
        if fault is not None:
            raise ModelRefused(f"{fault}; {_remedy(config.models_dir, published)}.")
        return as_request(DEFAULT_DATA)
    described = active.get("data")
    described = described if isinstance(described, dict) else {}
    is_of_data = data is None or described.get("fingerprint") == fingerprint
    if is_of_data and not _is_outdated(active) and (algorithm is None or algorithm in _names(active)):
        return None
    if data is not None:
        return as_request(data)
    # Only the demo data can be had again from its description.
    source = described.get("source")
    if isinstance(source, str) and is_demo(source):
        return as_request(source)
    if algorithm is not None and algorithm not in _names(active):
        raise UsageError(
            f"The active model is of {active['algorithm']}: name the data to train {algorithm} on with --data."
        )
    return None


def _names(manifest: dict[str, Any]) -> set[str]:
    """Return the names by which a model may have been asked for."""
    selection = manifest.get("selection")
    requested = selection.get("requested") if isinstance(selection, dict) else None
    # A preset is not the algorithm that it configures.
    if isinstance(requested, str) and requested != AUTO:
        return {requested}
    return {str(manifest["algorithm"]), AUTO}


def _is_outdated(manifest: dict[str, Any]) -> bool:
    """Whether an older release activated the model although its lists lose to popularity."""
    return not isinstance(manifest.get("selection"), dict) and reason_against(manifest) is not None


def is_demo(source: str) -> bool:
    """Whether the source in a manifest is the demo data alone."""
    try:
        return demo.parse_spec(source) is not None
    except DataError:
        return False


def _remedy(models_dir: Path, published: Sequence[str]) -> str:
    """Name the published versions that can be served, newest first, and the command."""
    intact: list[str] = []
    for version in reversed(published[-_CHECKED_VERSIONS:]):
        with contextlib.suppress(ModelError):
            artefact.load(models_dir / version)
            intact.append(version)
    if not intact:
        return "no other version is intact: publish one with `recollect train --data PATH`"
    are = "this version is intact" if len(intact) == 1 else "these versions are intact, the newest first"
    return f"{are}: {', '.join(intact)}; serve one with `recollect models activate VERSION`"
