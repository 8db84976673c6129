"""What generated lists hold of a user: the part of `recollect audit --erased ID` for `RECOLLECT_HOME/generated`.

Invariant: complete folders and those that were begun are searched, with the copies of the live state in the latter. A
generation may go on meanwhile: a file that it renames is searched under its new name.
"""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from ops.offline.frozen_state import frozen_times
from service.config import Config
from service.errors import RunError
from service.generation.erasure.folder_search import final_name, folders_below, shards_among, staged_among
from service.generation.files.output_folder import FROZEN, OutputFolder, is_held, read_manifest
from service.models.files.erased_users import rows_of
from service.models.vocabulary import Vocabulary
from telemetry.errors import BadEventError, StateError
from telemetry.ids import rfc3339_ms
from telemetry.pseudonym import Pseudonymiser

_MS_PER_S = 1000


def search_lists(
    config: Config, names: Collection[str], pseudonyms: Pseudonymiser, unread: list[str]
) -> Iterator[tuple[str, str]]:
    """Yield each list and each copied event of a user: its place, and the time that it is of, RFC 3339.

    Args:
        config: The installation.
        names: The ids that the user may have in telemetry, as a set.
        pseudonyms: Map users of lists to them.
        unread: Sentences on what cannot be searched are added to it.
    """
    root = config.generated_dir
    try:
        folders = list(folders_below(root))
    except RunError as error:
        unread.append(str(error))
        return
    if not folders:
        return
    try:
        from service.generation.erasure.shard_erasure import UNREADABLE, users_named
    except ModuleNotFoundError as error:
        unread.append(f"{root} holds generated lists, and searching them needs {error.name}: recollect[train].")
        return
    for folder in folders:
        place = f"{root.name}/{folder.relative_to(root)}"
        try:
            made_at = _time_of(folder)
            names_of_files = [path.name for path in folder.iterdir()]
        except (RunError, OSError) as error:
            unread.append(str(error))
            continue
        waiting = sorted([*shards_among(names_of_files), *staged_among(names_of_files)])
        for name in waiting:
            try:
                users = users_named(folder / name)
            except FileNotFoundError:
                # The generation has renamed the file, or it was removed.
                renamed = final_name(name)
                if renamed is not None and renamed not in waiting:
                    waiting.append(renamed)
                continue
            except UNREADABLE as error:
                if final_name(name) is not None and is_held(folder):
                    unread.append(f"{folder} is being generated: search again when it is complete.")
                else:
                    unread.append(f"{folder / name} cannot be read: {type(error).__name__}.")
                continue
            yield from ((place, made_at) for _ in rows_of(Vocabulary(users), names, pseudonyms))
        if (folder / FROZEN).exists():
            try:
                yield from ((f"{place}/{FROZEN}", time) for time in frozen_times(folder / FROZEN, names))
            except (StateError, BadEventError, OSError) as error:
                if not (folder / FROZEN).exists():
                    # The generation is complete.
                    continue
                unread.append(f"{folder / FROZEN} cannot be read: {error}")


def _time_of(folder: Path) -> str:
    """Return the time that the lists of a folder are of; of one without a record, the first time there is."""
    manifest: dict[str, Any] | None = read_manifest(folder)
    if manifest is not None:
        return str(manifest["as_of"])
    begun = OutputFolder(folder).peek()
    return rfc3339_ms(0 if begun is None else begun["as_of_ms"] / _MS_PER_S)
