"""The files of a model's networks: `<name>.safetensors`, `features.json`, and `<name>.onnx` for other languages.

Invariant: the content of a file counts only if it has the sha256 of the manifest. Replicas do not read ONNX.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import safetensors.numpy
from safetensors import SafetensorError

from service.errors import ModelRefused
from service.models.features.feature_encoder import FeatureEncoder
from service.models.files import published_files
from service.models.networks import kinds
from service.models.networks.networks import NAMES, Networks

_FEATURES: Final = "features"
# Weights are private memory of each replica; tables belong into the arrays, which replicas share.
_LIMIT_BYTES: Final = 256 << 20


def write(directory: Path, networks: Networks) -> dict[str, Any]:
    """Write the files of a version, and return their description for the manifest."""
    described: dict[str, Any] = {}
    for name, network in networks.by_name().items():
        weights = safetensors.numpy.save(dict(network.tensors()))
        described[name] = {
            "kind": network.kind,
            "settings": network.settings(),
            **_written(directory / f"{name}.safetensors", weights),
        }
        if name in networks.onnx:
            described[name]["onnx"] = {
                **_written(directory / f"{name}.onnx", networks.onnx[name]),
                "largest_difference": networks.onnx_difference.get(name),
            }
    if networks.features is not None:
        described[_FEATURES] = _written(directory / f"{_FEATURES}.json", networks.features.to_bytes())
    return described


def read(directory: Path, described: Any, *, with_onnx: bool = False) -> Networks:
    """Read the networks of a version.

    Args:
        directory: That of the version.
        described: The manifest's `networks`.
        with_onnx: Whether to read the ONNX files, too.

    Raises:
        ModelRefused: The description or a file is damaged, or a network is of an unknown kind.
    """
    version = directory.name
    if not isinstance(described, dict) or "user_tower" not in described or not described.keys() <= {*NAMES, _FEATURES}:
        raise ModelRefused(f"{version}: the manifest does not describe the networks.")
    found: dict[str, Any] = {}
    onnx: dict[str, bytes] = {}
    differences: dict[str, float] = {}
    features = None
    for name, entry in described.items():
        if name == _FEATURES:
            features = _encoder(directory, entry)
            continue
        if not isinstance(entry, dict) or not isinstance(entry.get("settings"), dict):
            raise ModelRefused(f"{version}: the manifest does not describe {name}.")
        weights = _checked(directory / f"{name}.safetensors", entry)
        try:
            tensors = safetensors.numpy.load(weights)
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ModelRefused(f"{version}: the weights of {name} cannot be read: {error}.") from error
        found[name] = kinds.network(str(entry.get("kind")), tensors, entry["settings"])
        exported = entry.get("onnx")
        if with_onnx and exported is not None:
            onnx[name] = _checked(directory / f"{name}.onnx", exported)
            if isinstance(exported.get("largest_difference"), float):
                differences[name] = exported["largest_difference"]
    return Networks(**found, features=features, onnx=onnx, onnx_difference=differences)


def _encoder(directory: Path, described: Any) -> FeatureEncoder:
    content = _checked(directory / f"{_FEATURES}.json", described)
    try:
        return FeatureEncoder.from_bytes(content)
    except ModelRefused as error:
        raise ModelRefused(f"{directory.name}: {error}") from error


def _written(path: Path, content: bytes) -> dict[str, Any]:
    published_files.write(path, content)
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def _checked(path: Path, described: Mapping[str, Any]) -> bytes:
    version = path.parent.name
    try:
        content = published_files.read_regular(path, _LIMIT_BYTES)
    except OSError as error:
        raise ModelRefused(f"{version}: {path.name} cannot be read: {error.strerror}.") from error
    if not isinstance(described, dict) or hashlib.sha256(content).hexdigest() != described.get("sha256"):
        raise ModelRefused(f"{version}: {path.name} does not have the sha256 of the manifest.")
    return content
