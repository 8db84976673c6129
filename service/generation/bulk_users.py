"""The users of a generation: those of the model, of a file, or of the live state too, cut into shards (pure)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.api import wire
from service.errors import UsageError
from service.models.snapshot import ModelSnapshot
from telemetry.pseudonym import Pseudonymiser

UNKNOWN: Final = -1
# A file of so many rows has tens of megabytes: few requests for a warehouse, and a minute's work for a worker.
_SHARD_ROWS: Final = 5_000_000
_MOST_SHARD_USERS: Final = 50_000
_LEAST_SHARD_USERS: Final = 1_000
# As many shards keep some workers busy to the end.
_SHARDS: Final = 32


@dataclass(frozen=True, eq=False)
class BulkUsers:
    """Users in the order of their lists, each once.

    Attributes:
        ids: The users, as in the model or in the file.
        rows: Int64 (n,), in the model; `UNKNOWN` (-1) of one whom it does not know.
    """

    ids: Sequence[str]
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of_model(cls, snapshot: ModelSnapshot, others: Sequence[str] = ()) -> "BulkUsers":
        """Return all users of a model, and others whom it does not know."""
        n = len(snapshot.users)
        rows = np.concatenate([np.arange(n), np.full(len(others), UNKNOWN)])
        return cls([*snapshot.users.id_of, *others] if others else snapshot.users.id_of, rows)

    @classmethod
    def named(cls, snapshot: ModelSnapshot, ids: Iterable[str], pseudonyms: Pseudonymiser) -> "BulkUsers":
        """Return the users of some ids, each once, in the order in which they come first."""
        unique = list(dict.fromkeys(ids))
        row_of = snapshot.users.row_of
        # A model that was trained on archived events holds pseudonyms.
        rows = [row_of.get(id_, row_of.get(pseudonyms.pseudonym(id_), UNKNOWN)) for id_ in unique]
        return cls(unique, np.array(rows, np.int64))


def read_ids(lines: Iterable[bytes], source: str) -> list[str]:
    """Return the ids of a file, one a line; blank lines are passed over.

    Raises:
        UsageError: A line is no id.
    """
    ids = []
    for number, line in enumerate(lines, 1):
        try:
            text = line.decode().strip()
        except UnicodeDecodeError:
            raise UsageError(f"{source}, line {number}: the id is not UTF-8.") from None
        if not text:
            continue
        if not wire.valid_id(text):
            raise UsageError(f"{source}, line {number}: an id {wire.ID_RULE}.")
        ids.append(text)
    if not ids:
        raise UsageError(f"{source} names no user.")
    return ids


def default_shard_users(n_users: int, n: int) -> int:
    """Return how many users a shard has by default, from the numbers of users and of items of a list alone."""
    most = max(1, min(_MOST_SHARD_USERS, _SHARD_ROWS // n))
    return min(most, max(_LEAST_SHARD_USERS, -(-n_users // _SHARDS)))


def n_shards(n_users: int, shard_users: int) -> int:
    """Return how many shards there are; at least one, which may be empty."""
    return max(1, -(-n_users // shard_users))
