"""What each shard is made of: the users of its range, with their tables and live events, looked up when it is due."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.executors.executor import Ref
from service.generation.bulk_users import BulkUsers, n_shards
from service.generation.files.shard_format import Layout
from service.generation.lists.list_model import BulkModel
from service.generation.lists.shard_users import ShardUsers
from service.live.live_state import LiveState
from telemetry.live.live_event import LiveEvent
from telemetry.pseudonym import Pseudonymiser, is_pseudonym


class ShardSource:
    """The shards of one generation.

    Args:
        model: The model, with all its users.
        users: The users, shard after shard.
        shard_users: How many of them a shard has.
        state: The live state; None for users as trained.
        pseudonyms: Map users to those of the live state.

    Attributes:
        left_out: Bool (n_users,), the users who get no list, because they were erased; see `leave_out`.
    """

    def __init__(
        self,
        model: BulkModel,
        users: BulkUsers,
        shard_users: int,
        state: LiveState | None,
        pseudonyms: Pseudonymiser,
    ) -> None:
        self.model: Final = model
        self.users: Final = users
        self.shard_users: Final = shard_users
        self.left_out: NDArray[np.bool_] = np.zeros(len(users), bool)
        self._state: Final = state
        self._pseudonyms: Final = pseudonyms
        self._users_sha256: dict[int, str] = {}

    def __len__(self) -> int:
        return n_shards(len(self.users), self.shard_users)

    def leave_out(self, users: NDArray[np.bool_]) -> None:
        """Set the users who get no list, bool (n_users,)."""
        changed = np.flatnonzero(users != self.left_out) // self.shard_users
        for number in np.unique(changed).tolist():
            self._users_sha256.pop(number, None)
        self.left_out = users.copy()

    def users_sha256(self, number: int) -> str:
        """Return the sha256 of the ids of a shard's users in their order, each with a line feed."""
        known = self._users_sha256.get(number)
        if known is None:
            digest = hashlib.sha256()
            for place in self._places(number).tolist():
                digest.update(self.users.ids[place].encode() + b"\n")
            known = self._users_sha256[number] = digest.hexdigest()
        return known

    def of(self, number: int) -> ShardUsers:
        """Return the users of a shard, in their order."""
        places = self._places(number)
        ids = [self.users.ids[place] for place in places.tolist()]
        return ShardUsers.of(self.model.snapshot, ids, self.users.rows[places], self._live(ids))

    def _places(self, number: int) -> NDArray[np.int64]:
        start = number * self.shard_users
        return start + np.flatnonzero(~self.left_out[start : start + self.shard_users])

    def _live(self, ids: Sequence[str]) -> dict[int, Sequence[LiveEvent]]:
        """Return the live events of the users who have any, by place."""
        state = self._state
        if state is None:
            return {}
        found = ((place, live_events(state, user_id, self._pseudonyms)) for place, user_id in enumerate(ids))
        return {place: events for place, events in found if events}


def live_events(state: LiveState, user_id: str, pseudonyms: Pseudonymiser) -> Sequence[LiveEvent]:
    """Return the live events of a user; of a model that was trained on archived events the id may be a pseudonym."""
    name = user_id if is_pseudonym(user_id) else pseudonyms.pseudonym(user_id)
    events = state.user(name)
    return () if events is None else events.events


class ShardTasks(Sequence[tuple[Any, ...]]):
    """The arguments of `make_shard` for some shards, each made when it is asked for.

    Args:
        source: Where the users come from.
        model: The model as workers have it.
        numbers: The shards.
        layout: Of their files.
    """

    def __init__(
        self, source: ShardSource, model: BulkModel | Ref[BulkModel], numbers: Sequence[int], layout: Layout
    ) -> None:
        self._source = source
        self._model = model
        self._numbers = numbers
        self._layout = layout

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, task: Any) -> Any:
        return self._model, self._source.of(self._numbers[task]), self._layout

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return (self[task] for task in range(len(self)))
