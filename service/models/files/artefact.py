"""A published model on disk: `models/<version>/` holds manifest.json and one raw little-endian file per array.

Invariants:

- A directory `models/<version>` is complete: one rename puts it into place (`service.models.files.published_files`).
- Nothing is unpickled. An array is mapped after its file is checked against the manifest
  (`service.models.files.arrays`); `ModelSnapshot` then checks shapes against each other, and that every number is
  finite.
"""

import json
import os
import stat
from collections.abc import Callable
from datetime import datetime
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as distribution_version
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.errors import ModelMissing, ModelRefused
from service.models.files import arrays, index_file, network_files, published_files
from service.models.fold_in.settings import FoldIn
from service.models.history.event_values import DEFAULT_VALUES
from service.models.history.rating_scale import RatingScale
from service.models.history.user_history import EVENT_TYPES
from service.models.items.records import ItemRecords
from service.models.neighbourhood import Neighbourhood
from service.models.snapshot import ModelSnapshot
from service.models.user_clusters import UserClusters
from service.models.vocabulary import Vocabulary

MANIFEST: Final = "manifest.json"
_FORMAT: Final = 1
_MANIFEST_LIMIT_BYTES: Final = 1 << 20
_ID_LIMIT_BYTES: Final = 512  # 128 characters of four bytes


def write(directory: Path, snapshot: ModelSnapshot, origin: dict[str, Any]) -> None:
    """Write a version; for `published_files.exclusive` use.

    Args:
        directory: `models/<version>`, which does not exist yet.
        origin: The manifest's `measures`, `data`, `selection`, `created`, `code_version`, `index` and, of a copy,
            `derived`.
    """
    with published_files.new_directory(directory) as temporary:
        described = {
            name: arrays.write(temporary / f"{name}.bin", name, array) for name, array in _arrays_of(snapshot).items()
        }
        networks = None if snapshot.networks is None else network_files.write(temporary, snapshot.networks)
        index = index_file.described(origin.get("index"), temporary, snapshot.item_index)
        manifest = {
            "format": _FORMAT,
            "version": directory.name,
            "algorithm": snapshot.algorithm,
            "settings": snapshot.settings,
            **origin,
            "index": index,
            "data_as_of": snapshot.data_as_of,
            "n_users": len(snapshot.users),
            "n_items": len(snapshot.items),
            "n_factors": snapshot.n_factors,
            "global_mean": snapshot.global_mean,
            "rating_min": snapshot.rating_min,
            "rating_max": snapshot.rating_max,
            "event_values": dict(zip(EVENT_TYPES, snapshot.event_values, strict=True)),
            "neighbourhood": None if snapshot.neighbourhood is None else snapshot.neighbourhood.description(),
            "fold_in": None if snapshot.fold_in is None else snapshot.fold_in.description(),
            "networks": networks,
            "learning_curve": list(snapshot.learning_curve),
            "model_bytes": sum(entry["bytes"] for entry in (*described.values(), *(networks or {}).values())),
            "arrays": described,
        }
        published_files.write(temporary / MANIFEST, json.dumps(manifest, indent=2, ensure_ascii=False).encode() + b"\n")


def load(directory: Path, checkpoint: Callable[[], None] = lambda: None, *, with_onnx: bool = False) -> ModelSnapshot:
    """Check a version and map its arrays read-only, shared between processes.

    Time and memory are proportional to its files, which are refused if they exceed the machine's memory.

    Args:
        directory: `models/<version>`.
        checkpoint: Called between pieces of work; an exception from it ends the loading.
        with_onnx: Whether to read the networks' ONNX files, too, which a copy of the version needs.

    Raises:
        ModelMissing: There is no such directory.
        ModelRefused: The manifest is not of this format, or an array differs from the manifest.
    """
    manifest = read_manifest(directory)
    described = manifest.get("neighbourhood")
    optional = [name for name in arrays.OPTIONAL_DTYPES if name in manifest["arrays"]]
    names = [*arrays.DTYPES, *optional, *(() if described is None else arrays.NEIGHBOUR_DTYPES)]
    how = manifest.get("fold_in")
    # Models of older versions have no item catalogue.
    has_records = "item_records" in manifest["arrays"]
    names += arrays.CATALOGUE_DTYPES if has_records else ()
    has_clusters = "user_clusters" in manifest["arrays"]
    names += arrays.CLUSTER_DTYPES if has_clusters else ()
    read = arrays.read(directory, manifest["arrays"], names, checkpoint)
    # Models of older versions have no networks.
    described_networks = manifest.get("networks")
    networks = None
    if described_networks is not None:
        networks = network_files.read(directory, described_networks, with_onnx=with_onnx)
    try:
        users = Vocabulary.from_arrays(read["user_ids"], read["user_id_offsets"], "user_ids")
        checkpoint()
        items = Vocabulary.from_arrays(read["item_ids"], read["item_id_offsets"], "item_ids")
        checkpoint()
        datetime.fromisoformat(manifest["data_as_of"])
        snapshot = ModelSnapshot(
            algorithm=str(manifest["algorithm"]),
            settings=dict(manifest["settings"]),
            users=users,
            items=items,
            user_factors=read["user_factors"],
            item_factors=read["item_factors"],
            user_bias=read["user_bias"],
            item_bias=read["item_bias"],
            global_mean=float(manifest["global_mean"]),
            rating_min=float(manifest["rating_min"]),
            rating_max=float(manifest["rating_max"]),
            event_values=_event_values(manifest),
            history=arrays.sparse(read, "history", "values", (len(users), len(items))),
            popularity=read["popularity"],
            data_as_of=manifest["data_as_of"],
            neighbourhood=None if described is None else _neighbourhood(read, described, len(users), len(items)),
            fold_in=None if how is None else FoldIn.from_description(how),
            networks=networks,
            learning_curve=tuple(manifest.get("learning_curve", ())),
            **{name: read[name] for name in optional},
            item_records=ItemRecords(read["item_records"], read["item_record_offsets"]) if has_records else None,
            user_clusters=UserClusters(read["user_clusters"], read["cluster_items"]) if has_clusters else None,
            item_index=index_file.read(
                directory, manifest.get("index"), len(items), read["item_factors"].shape[1], checkpoint
            ),
            version=str(manifest["version"]),
            manifest=manifest,
        )
    except ModelRefused as error:
        raise ModelRefused(f"{directory.name}: {error}") from error
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ModelRefused(f"{directory.name}: the manifest lacks a value or has an invalid one: {error}.") from error
    if not len(items):
        raise ModelRefused(f"{directory.name}: it has no items.")
    for name, size in (("n_users", len(users)), ("n_items", len(items)), ("n_factors", snapshot.n_factors)):
        if manifest.get(name) != size:
            raise ModelRefused(f"{directory.name}: the manifest says {name} {manifest.get(name)!r}, but it has {size}.")
    return snapshot


def load_users(directory: Path) -> Vocabulary:
    """Check and read the user ids of a version, and nothing else.

    Raises:
        ModelMissing: There is no such directory.
        ModelRefused: The manifest is not of this format, or the ids differ from it.
    """
    described = read_manifest(directory)["arrays"]
    read = arrays.read(directory, described, ("user_ids", "user_id_offsets"), lambda: None)
    try:
        return Vocabulary.from_arrays(read["user_ids"], read["user_id_offsets"], "user_ids")
    except ModelRefused as error:
        raise ModelRefused(f"{directory.name}: {error}") from error


def read_manifest(directory: Path) -> dict[str, Any]:
    """Return a version's manifest.

    Raises:
        ModelMissing: There is no such version.
        ModelRefused: The manifest cannot be read, or is not of this format.
    """
    try:
        if stat.S_ISLNK(directory.lstat().st_mode):
            raise ModelRefused(f"{directory.name}: it is a link, not a directory.")
        manifest = json.loads(published_files.read_regular(directory / MANIFEST, _MANIFEST_LIMIT_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        raise ModelMissing(f"There is no model {directory.name!r} in {directory.parent}.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelRefused(f"{directory.name}: the manifest cannot be read: {error}.") from error
    if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
        raise ModelRefused(f"{directory.name}: the manifest is not of format {_FORMAT}.")
    if manifest.get("version") != directory.name or not isinstance(manifest.get("arrays"), dict):
        raise ModelRefused(f"{directory.name}: the manifest names another version or describes no arrays.")
    return manifest


def first_user_id(directory: Path) -> str | None:
    """Return the id of a version's first user from the first bytes of its id files; None if it has no user.

    Raises:
        ModelRefused: The id files cannot be read.
    """
    try:
        with (
            os.fdopen(published_files.open_regular(directory / "user_id_offsets.bin"), "rb") as offsets,
            os.fdopen(published_files.open_regular(directory / "user_ids.bin"), "rb") as ids,
        ):
            bounds = np.frombuffer(offsets.read(16), dtype="<i8").tolist()
            return ids.read(min(bounds[1], _ID_LIMIT_BYTES)).decode() if len(bounds) == 2 else None
    except (OSError, ValueError) as error:
        raise ModelRefused(f"{directory.name}: the user ids cannot be read: {error}.") from error


def size_bytes(snapshot: ModelSnapshot) -> int:
    """Return the size of the arrays and of the networks' weights, about the manifest's `model_bytes`."""
    tables = sum(array.size * np.dtype(arrays.dtype_of(name)).itemsize for name, array in _arrays_of(snapshot).items())
    networks = () if snapshot.networks is None else snapshot.networks.by_name().values()
    return tables + sum(weight.nbytes for network in networks for weight in network.tensors().values())


def _arrays_of(snapshot: ModelSnapshot) -> dict[str, NDArray[Any]]:
    user_ids, user_id_offsets = snapshot.users.to_arrays()
    item_ids, item_id_offsets = snapshot.items.to_arrays()
    found: dict[str, NDArray[Any]] = {
        "user_ids": user_ids,
        "user_id_offsets": user_id_offsets,
        "item_ids": item_ids,
        "item_id_offsets": item_id_offsets,
        "user_factors": snapshot.user_factors,
        "item_factors": snapshot.item_factors,
        "user_bias": snapshot.user_bias,
        "item_bias": snapshot.item_bias,
        "popularity": snapshot.popularity,
        "history_indptr": snapshot.history.indptr,
        "history_indices": snapshot.history.indices,
        "history_values": snapshot.history.data,
    }
    optional = {name: getattr(snapshot, name) for name in arrays.OPTIONAL_DTYPES}
    found |= {name: array for name, array in optional.items() if array is not None}
    if snapshot.user_clusters is not None:
        found |= {"user_clusters": snapshot.user_clusters.of_users, "cluster_items": snapshot.user_clusters.items}
    if snapshot.neighbourhood is not None:
        weights = snapshot.neighbourhood.weights
        found |= {
            "neighbour_indptr": weights.indptr,
            "neighbour_indices": weights.indices,
            "neighbour_weights": weights.data,
        }
    if snapshot.item_records is not None:
        found |= {
            "item_records": snapshot.item_records.content,
            "item_record_offsets": snapshot.item_records.offsets,
        }
    return found


def _event_values(manifest: dict[str, Any]) -> tuple[float, ...]:
    """Return the published values of events; of a model without them the default ones on its scale."""
    if "event_values" not in manifest:
        return DEFAULT_VALUES.on_scale(RatingScale(float(manifest["rating_min"]), float(manifest["rating_max"])))
    return tuple(float(manifest["event_values"][type_]) for type_ in EVENT_TYPES)


def _neighbourhood(read: arrays.Arrays, described: Any, n_users: int, n_items: int) -> Neighbourhood:
    if not isinstance(described, dict):
        raise ModelRefused("The manifest does not describe the neighbourhood as an object.")
    side = n_items if described.get("over") == "items" else n_users
    return Neighbourhood.from_description(described, arrays.sparse(read, "neighbour", "weights", (side, side)))


def code_version() -> str:
    """Return the version of the running program."""
    try:
        return distribution_version("recollect")
    except PackageNotFoundError:
        return "source"
