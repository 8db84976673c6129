"""A published model on disk: `models/<version>/` holds manifest.json and one raw little-endian file per array.

Invariants, in this order:

1. A directory `models/<version>` is whole: it comes into place by one rename (`service.models.published_files`).
2. `models/ACTIVE` is one line naming a whole directory; it is replaced by a rename, never edited.
3. Nothing is ever unpickled. What is mapped was checked first: a regular file, its byte length, dtype and shape against
   the manifest, and its sha256 (`service.models.arrays`), then shapes against each other and finiteness (in
   `ModelSnapshot`).
"""

import json
import os
import re
import secrets
import stat
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as distribution_version
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.errors import ModelError, ModelMissing, ModelRefused
from service.models import arrays, published_files
from service.models.neighbourhood import Neighbourhood
from service.models.snapshot import ModelSnapshot
from service.models.vocabulary import Vocabulary
from telemetry.ids import rfc3339_ms

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
ACTIVE: Final = "ACTIVE"
_MANIFEST_LIMIT_BYTES: Final = 1 << 20
_ACTIVE_LIMIT_BYTES: Final = 4096
# 128 characters of four bytes.
_ID_LIMIT_BYTES: Final = 512
_VERSION = re.compile(r"[a-z0-9_]{1,32}-\d{8}T\d{6}-[0-9a-f]{4}")


def publish(
    models_dir: Path,
    snapshot: ModelSnapshot,
    *,
    data: dict[str, Any],
    measures: dict[str, Any],
    finish: Callable[[ModelSnapshot], ModelSnapshot] | None = None,
) -> str:
    """Write a snapshot as a new version, atomically; it is not active yet.

    Args:
        models_dir: The directory of all versions; made if it is not there.
        snapshot: The model.
        data: What it was trained on: counts and `fingerprint`.
        measures: What it reached on a hold-out, as plain JSON values.
        finish: A last change to the model, made while nobody else can publish.

    Returns:
        The new version, `<algorithm>-<UTC time>-<4 hex digits>`.
    """
    models_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with published_files.exclusive(models_dir):
        if finish is not None:
            snapshot = finish(snapshot)
        now = datetime.now(UTC)
        version = f"{snapshot.algorithm}-{now:%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"
        created = rfc3339_ms(now.timestamp())
        origin = {"measures": measures, "data": data, "created": created, "code_version": _code_version()}
        _write(models_dir / version, snapshot, origin)
    return version


def derive(models_dir: Path, snapshot: ModelSnapshot, why: str) -> str:
    """Write a changed copy of a published version beside it, atomically; for `files.exclusive` use.

    The copy says what it comes from (`derived`), and keeps the rest of its origin's manifest and the time in its name,
    so that it takes its origin's place among the versions.

    Args:
        models_dir: The directory of all versions.
        snapshot: The changed model, with the manifest of its origin.
        why: The change, for people.

    Returns:
        The new version.
    """
    origin = snapshot.manifest
    source = str(origin["version"])
    version = source
    while (models_dir / version).exists():
        version = f"{source.rpartition('-')[0]}-{secrets.token_hex(2)}"
    derived = {
        "from": source,
        # The versions between are gone, and nobody else remembers which training this was.
        "first": origin["derived"]["first"] if "derived" in origin else source,
        "at": rfc3339_ms(time.time()),
        "why": why,
    }
    kept = {name: origin[name] for name in ("measures", "data", "created", "code_version")}
    _write(models_dir / version, snapshot, {**kept, "derived": derived})
    return version


def copies(models_dir: Path) -> dict[str, str]:
    """Return the versions that were copied and are still there, with their copies: what killed writers left.

    Raises:
        ModelRefused: The directory of all versions cannot be read.
    """
    found = versions(models_dir)
    pairs = {}
    for name in found:
        try:
            derived = read_manifest(models_dir / name).get("derived")
        except ModelError:
            continue
        if isinstance(derived, dict) and derived.get("from") in found:
            pairs[derived["from"]] = name
    return pairs


def load(directory: Path, alive: Callable[[], None] = lambda: None) -> ModelSnapshot:
    """Check a published directory and map its arrays read-only, shared between processes.

    It takes time and memory in proportion to files that are no larger than this machine's memory.

    Args:
        directory: `models/<version>`.
        alive: Called now and then; what it raises ends the loading.

    Raises:
        ModelMissing: There is no such directory.
        ModelRefused: Anything in it is not as the manifest says, or the manifest is not as we write it.
    """
    manifest = read_manifest(directory)
    described = manifest.get("neighbourhood")
    names = [*arrays.DTYPES, *(() if described is None else arrays.NEIGHBOUR_DTYPES)]
    read = arrays.read(directory, manifest["arrays"], names, alive)
    try:
        users = Vocabulary.from_arrays(read["user_ids"], read["user_id_offsets"], "user_ids")
        alive()
        items = Vocabulary.from_arrays(read["item_ids"], read["item_id_offsets"], "item_ids")
        alive()
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
            history=arrays.sparse(read, "history", "values", (len(users), len(items))),
            popularity=read["popularity"],
            data_as_of=manifest["data_as_of"],
            neighbourhood=None if described is None else _neighbourhood(read, described, len(users), len(items)),
            version=str(manifest["version"]),
            manifest=manifest,
        )
    except ModelRefused as error:
        raise ModelRefused(f"{directory.name}: {error}") from error
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ModelRefused(
            f"{directory.name}: the manifest lacks something or has it of a wrong kind: {error}"
        ) from error
    if not len(items):
        raise ModelRefused(f"{directory.name}: it has no items")
    for name, size in (("n_users", len(users)), ("n_items", len(items)), ("n_factors", snapshot.n_factors)):
        if manifest.get(name) != size:
            raise ModelRefused(f"{directory.name}: the manifest says {name} {manifest.get(name)!r}, and it has {size}")
    return snapshot


def load_users(directory: Path) -> Vocabulary:
    """Check and read only who is in a published version.

    Raises:
        ModelMissing: There is no such directory.
        ModelRefused: Its ids are not as the manifest says, or the manifest is not as we write it.
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
        ModelRefused: The manifest cannot be read, or is of another format.
    """
    try:
        if stat.S_ISLNK(directory.lstat().st_mode):
            raise ModelRefused(f"{directory.name}: it is a link, and a version is a directory")
        manifest = json.loads(published_files.read_regular(directory / MANIFEST, _MANIFEST_LIMIT_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        raise ModelMissing(f"there is no model {directory.name!r} in {directory.parent}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelRefused(f"{directory.name}: the manifest cannot be read: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ModelRefused(f"{directory.name}: the manifest is not of format {FORMAT}")
    if manifest.get("version") != directory.name or not isinstance(manifest.get("arrays"), dict):
        raise ModelRefused(f"{directory.name}: the manifest names another version or describes no arrays")
    return manifest


def directory_of(models_dir: Path, version: str) -> Path:
    """Return where a version is, if it is there: a name that somebody wrote is checked before it becomes a path.

    Raises:
        ModelMissing: It is no name of a version.
    """
    if not _VERSION.fullmatch(version):
        raise ModelMissing(f"there is no model {version!r} in {models_dir}")
    return models_dir / version


def versions(models_dir: Path) -> list[str]:
    """Return the published versions, oldest first.

    Raises:
        ModelRefused: The directory cannot be read.
    """
    try:
        if not models_dir.is_dir():
            return []
        found = [path.name for path in models_dir.iterdir() if _VERSION.fullmatch(path.name) and path.is_dir()]
    except OSError as error:
        raise ModelRefused(f"{models_dir} cannot be read: {error.strerror}") from error
    return sorted(found, key=lambda name: (name.split("-")[-2], name))


def active_version(models_dir: Path) -> str | None:
    """Return the version that ACTIVE names, or None where nothing is active.

    Raises:
        ModelRefused: ACTIVE holds something else than a version, or cannot be read.
    """
    try:
        name = published_files.read_regular(models_dir / ACTIVE, _ACTIVE_LIMIT_BYTES).decode(errors="replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ModelRefused(f"{models_dir / ACTIVE} cannot be read: {error.strerror}") from error
    if not _VERSION.fullmatch(name):
        raise ModelRefused(f"{models_dir / ACTIVE} does not name a version: {name[:80]!r}")
    return name


def first_user_id(directory: Path) -> str | None:
    """Return the id of a version's first user, reading two small places of it alone; None where there is none.

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
        raise ModelRefused(f"{directory.name}: the user ids cannot be read: {error}") from error


def activate(models_dir: Path, version: str) -> ModelSnapshot:
    """Check a published version once more and make it the active one; `publication.activate` is what takes turns.

    Args:
        models_dir: The directory of all versions.
        version: The one to activate; an older one is a rollback.

    Raises:
        ModelMissing: There is no such version.
        ModelRefused: It fails its checks; what was active stays.
    """
    snapshot = load(directory_of(models_dir, version))
    published_files.replace(models_dir / ACTIVE, f"{version}\n".encode())
    return snapshot


def write_beside(models_dir: Path, contents: dict[str, bytes]) -> None:
    """Replace small files next to ACTIVE (the static fallback lists), each atomically."""
    for name, content in contents.items():
        published_files.replace(models_dir / name, content)


def _write(directory: Path, snapshot: ModelSnapshot, origin: dict[str, Any]) -> None:
    """Write a version: the arrays, and a manifest of what they are and of where they come from."""
    with published_files.new_directory(directory) as aside:
        described = {
            name: arrays.write(aside / f"{name}.bin", name, array) for name, array in _arrays_of(snapshot).items()
        }
        manifest = {
            "format": FORMAT,
            "version": directory.name,
            "algorithm": snapshot.algorithm,
            "settings": snapshot.settings,
            **origin,
            "data_as_of": snapshot.data_as_of,
            "n_users": len(snapshot.users),
            "n_items": len(snapshot.items),
            "n_factors": snapshot.n_factors,
            "global_mean": snapshot.global_mean,
            "rating_min": snapshot.rating_min,
            "rating_max": snapshot.rating_max,
            "neighbourhood": None if snapshot.neighbourhood is None else snapshot.neighbourhood.description(),
            "model_bytes": sum(array["bytes"] for array in described.values()),
            "arrays": described,
        }
        published_files.write(aside / MANIFEST, json.dumps(manifest, indent=2, ensure_ascii=False).encode() + b"\n")


def size_bytes(snapshot: ModelSnapshot) -> int:
    """Return how large the arrays are that a replica maps: a manifest's `model_bytes`."""
    return sum(array.size * np.dtype(arrays.dtype_of(name)).itemsize for name, array in _arrays_of(snapshot).items())


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
    if snapshot.neighbourhood is not None:
        weights = snapshot.neighbourhood.weights
        found |= {
            "neighbour_indptr": weights.indptr,
            "neighbour_indices": weights.indices,
            "neighbour_weights": weights.data,
        }
    return found


def _neighbourhood(read: arrays.Arrays, described: Any, n_users: int, n_items: int) -> Neighbourhood:
    if not isinstance(described, dict):
        raise ModelRefused("the manifest does not describe the neighbourhood as an object")
    side = n_items if described.get("over") == "items" else n_users
    return Neighbourhood.described(described, arrays.sparse(read, "neighbour", "weights", (side, side)))


def _code_version() -> str:
    try:
        return distribution_version("recollect")
    except PackageNotFoundError:
        return "source"
