"""The model that an installation begins with, if it brings one: the active version of another model store.

An image, for example, has the model of the demo data, so that it serves at once and without what training needs.
"""

from pathlib import Path

from service.errors import ModelMissing
from service.models.files import active_model, artefact, published_files, versions
from service.models.files.erased_users import ErasedUsers
from service.models.publication import publication
from telemetry.pseudonym import Pseudonymiser


def publish(models_dir: Path, initial_dir: Path, pseudonyms: Pseudonymiser) -> str | None:
    """Copy the version into the model store and activate it; None if it has users who were erased since.

    Raises:
        ModelError: The other store has no active version, or it fails its checks.
        OSError: The model store cannot be written.
        RunError: The version cannot be activated.
    """
    folder = _folder(initial_dir)
    snapshot = artefact.load(folder)
    models_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    if ErasedUsers.read(models_dir).erased_rows(snapshot.users, pseudonyms):
        return None
    with published_files.exclusive(models_dir):
        _copy(folder, models_dir / snapshot.version)
    publication.activate(models_dir, snapshot.version)
    return snapshot.version


def is_of(initial_dir: Path, fingerprint: str | None, algorithm: str | None) -> bool:
    """Whether the version is what an operator asks for.

    Args:
        fingerprint: That of the data; None for any.
        algorithm: Its name; None for any.

    Raises:
        ModelError: The other store has no active version.
    """
    manifest = artefact.read_manifest(_folder(initial_dir))
    data = manifest.get("data")
    is_of_data = fingerprint is None or (isinstance(data, dict) and data.get("fingerprint") == fingerprint)
    return is_of_data and algorithm in {None, manifest["algorithm"]}


def _folder(initial_dir: Path) -> Path:
    version = active_model.version(initial_dir)
    if version is None:
        raise ModelMissing(f"No model is active in {initial_dir}.")
    return versions.directory_of(initial_dir, version)


def _copy(folder: Path, version: Path) -> None:
    # A version is complete once it exists, so that one which an earlier start has copied need not be copied again.
    if version.exists():
        return
    with published_files.new_directory(version) as temporary:
        for path in folder.iterdir():
            published_files.write(temporary / path.name, path.read_bytes())
