"""Finds erased users among the users of lists, again and again as more are erased (pure).

The digests of all users are computed once, and kept as their first characters beside the places, in order: 24 bytes
for each. A digest of the list of erased users is then found by a binary search, however many users there are.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.models.files.erased_users import ErasedAt, ErasedUsers, latest, user_keys
from telemetry.pseudonym import Pseudonymiser

# Half of a digest of 32 hexadecimal digits; what is found by it is compared in full.
_START: Final = slice(2, 18)
_STARTS: Final = np.dtype("S16")


class ErasedPlaces:
    """The places of erased users in a sequence of users.

    Args:
        ids: The users, as in a model or in telemetry.
        pseudonyms: Map them to those of telemetry.
    """

    def __init__(self, ids: Sequence[str], pseudonyms: Pseudonymiser) -> None:
        self._ids: Final = ids
        self._pseudonyms: Final = pseudonyms
        self._salt: bytes | None = None
        self._starts: NDArray[np.bytes_] = np.empty(0, _STARTS)
        self._places: NDArray[np.int64] = np.empty(0, np.int64)

    def of(self, listed: ErasedUsers) -> dict[int, ErasedAt]:
        """Return by place of a listed user when that user was erased."""
        times = listed.times()
        if not times:
            return {}
        if self._salt != listed.salt:
            self._compute(listed)
        digest_of = listed.digest()
        wanted = np.array([_start_of(digest) for digest in times], _STARTS)
        first, last = (np.searchsorted(self._starts, wanted, side).tolist() for side in ("left", "right"))
        found: dict[int, ErasedAt] = {}
        for (digest, at), begin, end in zip(times.items(), first, last, strict=True):
            for place in self._places[begin:end].tolist():
                if digest in map(digest_of, user_keys(self._ids[place], self._pseudonyms)):
                    found[place] = latest([at, found.get(place, at)])
        return found

    def _compute(self, listed: ErasedUsers) -> None:
        digest_of = listed.digest()
        keys = (key for user_id in self._ids for key in user_keys(user_id, self._pseudonyms))
        starts = np.fromiter((_start_of(digest_of(key)) for key in keys), _STARTS)
        order = np.argsort(starts)
        self._starts = starts[order]
        # Each user has as many keys as any other.
        self._places = order * len(self._ids) // max(1, len(starts))
        self._salt = listed.salt


def _start_of(digest: str) -> bytes:
    return digest[_START].encode(errors="replace")
