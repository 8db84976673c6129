"""A consumer's hold on its place in Redis.

Invariants: it goes on only where our archive's mark is, or where a full Redis has no room for any. A mark that another
archive had, and Redis lost, is for that one to write again.
"""

from telemetry.ownership import Mark, foreign
from telemetry.stream import EventStream


class Tenure:
    """One consumer's tenure.

    Args:
        stream: The reading end.
    """

    def __init__(self, stream: EventStream) -> None:
        self._stream = stream
        # The mark that was there when it was last seen, if it was another archive's.
        self._foreign: Mark | None = None

    async def hold(self, ours: Mark) -> None:
        """See to it that the place is marked as ours.

        Args:
            ours: Our archive's mark.

        Raises:
            ForeignRedisError: It is another archive's.
            StreamError: Redis does not answer, or refuses.
        """
        there = await self._stream.mark() or self._foreign or await self._stream.leave_mark(ours)
        self._foreign = None if there is None or there.archive == ours.archive else there
        if self._foreign is not None:
            raise foreign(self._stream.where, self._foreign, ours.archive)
