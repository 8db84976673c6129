"""The rows of users in the served model."""

from service.models.snapshot import ModelSnapshot
from service.serving.replica.context import ReplicaContext


def user_row_of(context: ReplicaContext, snapshot: ModelSnapshot, user_id: str) -> int | None:
    """Find a user in the served model; None if the user is unknown or erased."""
    name = model_user_id(context, snapshot, user_id)
    return None if name in context.store.erased else snapshot.users.row_of.get(name)


def model_user_id(context: ReplicaContext, snapshot: ModelSnapshot, user_id: str) -> str:
    """Return the id of a user in a model: a model trained on archived events holds pseudonyms."""
    if context.pseudonyms.active and user_id not in snapshot.users.row_of:
        return context.pseudonyms.pseudonym(user_id)
    return user_id
