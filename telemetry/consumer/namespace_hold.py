"""A consumer's hold on its place in Redis.

Invariants: it goes on only where our archive's mark is, or where a full Redis has no room for any. A mark of another
archive that Redis then lost is for that one to write again, unless we had the place before and were not replaced on
purpose.
"""

from telemetry.archive.archive import Archive
from telemetry.stream.event_stream import EventStream
from telemetry.stream.namespace_owner import OwnerMark, foreign_redis_error


class NamespaceHold:
    """One consumer's tenure.

    Args:
        stream: The reading end.
        archive: Whose place it is; its lease is held when `hold` is called.
    """

    def __init__(self, stream: EventStream, archive: Archive) -> None:
        self._stream = stream
        self._archive = archive
        # The mark that was there when it was last seen, if it was another archive's.
        self._foreign: OwnerMark | None = None

    async def hold(self) -> None:
        """See to it that the place is marked as ours.

        Raises:
            ForeignRedisError: It is another archive's.
            StreamError: Redis does not answer, or refuses.
            ArchiveError: The catalogue cannot be written.
        """
        ours, where = self._archive.identity, self._stream.where
        there = await self._stream.read_mark()
        if there is None and (self._foreign is None or self._was_ours(self._foreign)):
            there = await self._stream.mark_if_unmarked(ours)
        elif there is None:
            there = self._foreign
        self._foreign = None if there is None or there.archive == ours.archive else there
        if self._foreign is not None:
            raise foreign_redis_error(where, self._foreign, ours.archive)
        if there is not None:
            await self._archive.remember_place(where)

    def _was_ours(self, foreign_mark: OwnerMark) -> bool:
        replaced = self._archive.identity.archive in foreign_mark.replaced
        return self._archive.place == self._stream.where and not replaced
