"""The model that an installation begins with, if it brings one: a published version in a folder of its own.

An image, for example, has the model of the demo data, so that it serves at once and without what training needs.
"""

from pathlib import Path

from service.models import artefact, publication, published_files
from service.models.erased_users import ErasedUsers
from telemetry.pseudonym import Pseudonymiser


def publish(models_dir: Path, folder: Path, pseudonyms: Pseudonymiser) -> str | None:
    """Copy a version into the model store and activate it; None if it has users who were erased since.

    Raises:
        ModelError: The folder has no published version, or it fails its checks.
        OSError: The model store cannot be written.
        RunError: The version cannot be activated.
    """
    snapshot = artefact.load(folder)
    models_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    if ErasedUsers.read(models_dir).erased_rows(snapshot.users, pseudonyms):
        return None
    with published_files.exclusive(models_dir):
        _copy(folder, models_dir / snapshot.version)
    publication.activate(models_dir, snapshot.version)
    return snapshot.version


def is_of(folder: Path, fingerprint: str | None, algorithm: str | None) -> bool:
    """Whether the version in a folder is what an operator asks for.

    Args:
        fingerprint: That of the data; None for any.
        algorithm: Its name; None for any.

    Raises:
        ModelError: The folder has no published version.
    """
    manifest = artefact.read_manifest(folder)
    data = manifest.get("data")
    is_of_data = fingerprint is None or (isinstance(data, dict) and data.get("fingerprint") == fingerprint)
    return is_of_data and algorithm in {None, manifest["algorithm"]}


def _copy(folder: Path, version: Path) -> None:
    # One that a killed start has left is complete.
    if version.exists():
        return
    with published_files.new_directory(version) as temporary:
        for path in folder.iterdir():
            published_files.write(temporary / path.name, path.read_bytes())
