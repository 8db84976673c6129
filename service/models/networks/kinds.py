"""Implementations of networks by the kind that manifests name; a module is imported when a model first needs it."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

from service.errors import ModelRefused
from service.models.networks.network import Network, Tensors

# By kind: module and class.
_KINDS: Final[dict[str, tuple[str, str]]] = {
    "history_tower": ("service.models.networks.history_tower", "HistoryTower"),
    "category_tower": ("service.models.networks.category_tower", "CategoryTower"),
    "sequence": ("service.models.networks.sequence", "SequenceTower"),
    "pair_ranker": ("service.models.networks.pair_ranker", "PairRanker"),
}


def network(kind: str, tensors: Tensors, settings: Mapping[str, Any]) -> Any:
    """Build a published network.

    Raises:
        ModelRefused: This release has no such kind, or the weights are refused.
    """
    if kind not in _KINDS:
        raise ModelRefused(f"The model has a network of the kind {kind!r}, which this release does not have.")
    module, name = _KINDS[kind]
    implementation: type[Network] = getattr(import_module(module), name)
    return implementation.of(tensors, settings)
