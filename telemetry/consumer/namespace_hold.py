"""A consumer's hold on its namespace in Redis.

Invariants: the consumer works only where its archive's mark is, or where a full Redis has no room for a mark. If Redis
lost the mark of another archive, that archive writes it again; this one does so only if it held the namespace before
and was not replaced on purpose.
"""

from telemetry.archive.archive import Archive
from telemetry.stream.event_stream import EventStream
from telemetry.stream.namespace_owner import OwnerMark, foreign_redis_error


class NamespaceHold:
    """One consumer's hold."""

    def __init__(self, stream: EventStream, archive: Archive) -> None:
        self._stream = stream
        self._archive = archive
        # The mark that was read last, if it was another archive's.
        self._foreign: OwnerMark | None = None

    async def ensure(self) -> None:
        """Ensure that the namespace has this archive's mark.

        Raises:
            ForeignRedisError: It has another archive's.
            StreamError: Redis does not answer, or refuses.
            ArchiveError: The catalogue cannot be written.
        """
        own, where = self._archive.identity, self._stream.where
        found = await self._stream.read_mark()
        if found is None and (self._foreign is None or self._held_before(self._foreign)):
            found = await self._stream.mark_if_unmarked(own)
        elif found is None:
            found = self._foreign
        self._foreign = None if found is None or found.archive == own.archive else found
        if self._foreign is not None:
            raise foreign_redis_error(where, self._foreign, own.archive)
        if found is not None:
            await self._archive.set_namespace(where)

    def _held_before(self, foreign: OwnerMark) -> bool:
        was_replaced = self._archive.identity.archive in foreign.replaced
        return self._archive.namespace == self._stream.where and not was_replaced
