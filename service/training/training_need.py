"""Whether `up` must train before it can serve. Imports neither a compiler nor the parts of a training."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from service.config import Config
from service.errors import ModelError, ModelRefused
from service.models import active_model, artefact, versions
from service.training.data import datasets
from service.training.data.data_request import DataRequest, as_request

DEFAULT_DATA: Final = "demo"
# The newest versions that are checked for an error message.
_CHECKED_VERSIONS: Final = 5


def needed_training(config: Config, data: str | DataRequest | None) -> DataRequest | None:
    """Return the data to train on before serving; None if the active model suffices.

    Only an installation without any model trains on the demo data: they must not replace a published model that cannot
    be served now.

    Args:
        config: The model store.
        data: The data that the operator asked for; None for any model.

    Raises:
        DataError: `data` does not exist or cannot be read.
        ModelRefused: `data` is None and no published model is active and intact, or the model store hangs.
    """
    fingerprint = None if data is None else datasets.fingerprint(data)
    return active_model.within_timeout(
        lambda: _needed(config, data, fingerprint), config.models_dir, config.models.load_timeout_s
    )


def _needed(config: Config, data: str | DataRequest | None, fingerprint: str | None) -> DataRequest | None:
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
    trained_on = described.get("fingerprint") if isinstance(described, dict) else None
    return None if data is None or fingerprint == trained_on else as_request(data)


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
