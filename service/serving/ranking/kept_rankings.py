"""Rankings that are kept until the next model, because users look at one list more than once.

Invariant: a kept ranking is the one that would be computed again. It is of a user as trained, without exclusions. After
an event of the user a request has a representation (`TopNRequest.user`), and its ranking is neither kept nor looked up.
"""

import weakref
from typing import Final

from service.models.ranking.scoring import Ranking, TopNRequest
from service.models.snapshot import ModelSnapshot

# A list of 30 items and the one beyond it, which tells whether there is a next page.
PLACES: Final = 31


class KeptRankings:
    """The best items of some users of one model.

    Args:
        most: How many users are kept, about a kilobyte each. One more, and all kept ones are dropped.
    """

    def __init__(self, most: int = 4096) -> None:
        self._most = most
        self._rankings: dict[int, Ranking] = {}
        # Not the snapshot itself, which may hold users who were erased since.
        self._snapshot: weakref.ref[ModelSnapshot] | None = None

    def find(self, snapshot: ModelSnapshot, top_n: TopNRequest) -> Ranking | None:
        """Return the ranking of a request that `fits`; None if it is not kept."""
        if self._snapshot is None or self._snapshot() is not snapshot:
            self._rankings.clear()
            self._snapshot = weakref.ref(snapshot)
        kept = self._rankings.get(top_n.user_row)
        return None if kept is None else first(kept, top_n.n)

    def keep(self, snapshot: ModelSnapshot, user_row: int, ranking: Ranking) -> None:
        """Keep the first `PLACES` places of a user of a model, unless another model has been asked for since."""
        if self._snapshot is None or self._snapshot() is not snapshot:
            return
        if len(self._rankings) >= self._most:
            self._rankings.clear()
        self._rankings[user_row] = ranking


def fits(top_n: TopNRequest) -> bool:
    """Whether the ranking of a request may be kept: of a user as trained, from the first place, without exclusions."""
    return top_n.user is None and top_n.offset == 0 and top_n.n <= PLACES and not top_n.exclude.size


def first(ranking: Ranking, n: int) -> Ranking:
    """Return the first n places of a ranking."""
    is_personal = ranking.is_personal
    return Ranking(ranking.rows[:n], ranking.scores[:n], None if is_personal is None else is_personal[:n])
