"""The erasure of users from folders of generated lists by a command: `recollect generate erase`."""

from collections.abc import Sequence
from pathlib import Path

from service.config import Config
from service.errors import RunError, UsageError
from service.generation.erasure.chosen_users import listed, named
from service.generation.erasure.folder_erasure import ErasedLists, erase_below
from service.generation.erasure.folder_search import folders_below
from service.models.files.erased_users import ErasedUsers, user_keys
from telemetry.failpoints import Failpoints


def erase_from_lists(config: Config, folders: Sequence[Path], user_ids: Sequence[str]) -> ErasedLists:
    """Remove users from the complete folders in some directories.

    Args:
        config: The installation, which has the list of erased users and the key of their pseudonyms.
        folders: The directories; none for that of the installation.
        user_ids: The users; none for those who were erased since the lists were made.

    Raises:
        UsageError: A directory holds no lists.
        ModelRefused: The list of erased users cannot be read.
        RunError: A folder was not searched or not done; the others are.
    """
    pseudonyms = config.pseudonymiser()
    if user_ids:
        chosen = named({key for user_id in user_ids for key in user_keys(user_id, pseudonyms)}, pseudonyms)
    else:
        chosen = listed(ErasedUsers.read(config.models_dir), pseudonyms)
    for folder in folders:
        if next(folders_below(folder), None) is None:
            raise UsageError(f"{folder} holds no generated lists.")
    total = ErasedLists()
    reasons = []
    for folder in folders or [config.generated_dir]:
        try:
            total += erase_below(folder, chosen, Failpoints.parse(config.failpoint))
        except RunError as error:
            reasons.append(str(error))
    if reasons:
        raise RunError(" ".join(reasons))
    return total
