"""Archives delivered entries: sort, plan, commit, then acknowledge, publish the watermark and trim, then the sinks.

Invariant: an uncommitted entry is delivered again; a committed and unacknowledged one is delivered again and skipped.
So whichever step the process dies at, an event is archived once. A failpoint stands at each step.
"""

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress

from telemetry.archive.archive import Archive
from telemetry.batch import Entry, EventPosition, Position, from_entry
from telemetry.catalogue.delivery_attempts import begin_attempt, begin_event, end_event
from telemetry.consumer.commit_plan import CommitPlan, plan_commit
from telemetry.consumer.context import ConsumerContext
from telemetry.consumer.delivery_sorter import SortedDeliveries, sort_deliveries
from telemetry.consumer.erasure_job import ErasureJob
from telemetry.consumer.event_reader import MAX_TRIES, EventCheck, EventReader
from telemetry.consumer.sinks import CommittedEvents, Sink
from telemetry.consumer.subscription import Subscription
from telemetry.erasure.erasure_requests import late_event_filter
from telemetry.errors import BadBatchError
from telemetry.ids import rfc3339_ms, uuid7
from telemetry.notes import Committed, SinkFailed
from telemetry.stream.event_stream import CommittedEntries, Delivered, EventStream


class EntryArchiver:
    """Archives what the consumer reads.

    Attributes:
        next_commit_s: Monotonic time of the next commit under light load: waiting gathers more events for each fsync.
    """

    def __init__(
        self,
        stream: EventStream,
        archive: Archive,
        subscription: Subscription,
        sinks: Sequence[Sink],
        erasure_job: ErasureJob,
        context: ConsumerContext,
        check: EventCheck | None,
    ) -> None:
        self._stream = stream
        self._archive = archive
        self._subscription = subscription
        self._sinks = sinks
        self._erasure_job = erasure_job
        self._context = context
        self._reader = EventReader(check)
        # Stored with delivery attempts: an attempt of another process that was not ended was fatal to it.
        self._run_id = uuid7()
        self.next_commit_s = 0.0

    @property
    def failing(self) -> bool:
        """Whether some event has failed and will be tried again."""
        return self._reader.failing

    async def archive_inherited(self, producer: str, entry: Entry) -> bool:
        """Archive an entry that may have killed an earlier consumer; returns whether it is settled."""
        position = Position.parse(entry.entry_id)
        at = self._archive.watermarks.get(producer, Position(0, 0))
        if entry.fields is not None and at < position and position.in_range:
            first = Position(position.epoch, at.seq + 1 if at.epoch == position.epoch else 1)
            attempt = await self._archive.write_catalogue(begin_attempt, self._run_id, producer, first, position)
            self._reader.mark_fatal(EventPosition(producer, position.epoch, seq) for seq in attempt.fatal)
            # The first delivery, by the consumer that died, is not counted.
            if attempt.times >= MAX_TRIES - 1:
                await self._probe_events(producer, entry, first)
        gaps = await self.archive([Delivered(producer, [entry])], pending=True)
        return not (self._reader.failing or gaps)

    async def archive(self, deliveries: Sequence[Delivered], *, pending: bool) -> Collection[str]:
        """Archive entries as far as possible. Must not be cancelled half way.

        Args:
            pending: Whether they come from the pending list, read from its start.

        Returns:
            The producers with a gap before the rest.
        """
        archive, subscription = self._archive, self._subscription
        now, resends = rfc3339_ms(time.time()), subscription.resends
        found = sort_deliveries(deliveries, archive.watermarks, self._reader, pending=pending, now=now, resends=resends)
        # Streams without a group are read from their watermark anyway.
        subscription.recheck |= found.recheck & subscription.joined
        subscription.add_gaps(found.gaps, found.linked)
        # Read each time: a request in the last commit applies to the events of this one.
        done_since = archive.days_ago(self._context.settings.seen_days)
        late_events = await archive.read_catalogue(late_event_filter, found.user_ids(), done_since)
        plan = plan_commit(found, await archive.seen_fingerprints(found.seen_keys()), late_events, archive.fingerprints)
        self._context.failpoints.hit("consumer.planned")
        if found.progress or found.dead_letters:
            started_s = time.monotonic()
            await archive.commit(plan.content)
            self.next_commit_s = started_s + self._context.settings.commit_interval_s
            self._report_commit(found, plan, time.monotonic() - started_s)
            if plan.content.erasures:
                self._erasure_job.wake()
        self._context.counters.redelivered += found.redelivered
        self._context.counters.trimmed_pending += found.trimmed
        try:
            has_room = await self._stream.acknowledge(
                [
                    CommittedEntries(name, ids, archive.watermarks.get(name))
                    for name, ids in found.to_acknowledge.items()
                    if ids
                ]
            )
            subscription.set_full(full=not has_room)
            self._context.failpoints.hit("consumer.acknowledged")
        finally:
            # Committed events go to the sinks, acknowledged or not.
            if found.progress:
                await self._write_to_sinks(CommittedEvents(plan.records, plan.content.erasures, archive.watermarks))
        self._context.failpoints.hit("consumer.finished")
        return found.gaps

    async def _probe_events(self, producer: str, entry: Entry, first: Position) -> None:
        """Handle each event of an entry on its own, so that a fatal one is known by its mark."""
        for position, line in _events(producer, entry, first.seq):
            event = Position(position.epoch, position.seq)
            await self._archive.write_catalogue(begin_event, self._run_id, producer, event)
            self._reader.probe(line, position)
            await self._archive.write_catalogue(end_event, self._run_id, producer, event)

    async def _write_to_sinks(self, commit: CommittedEvents) -> None:
        for sink in self._sinks:
            try:
                await sink.write(commit)
            except Exception as error:  # noqa: BLE001 - no error of a sink may stop the archive
                self._context.counters.sink_failures += 1
                self._context.notify(SinkFailed(sink.name, f"{type(error).__name__}: {error}"))

    def _report_commit(self, found: SortedDeliveries, plan: CommitPlan, duration_s: float) -> None:
        counters, progress = self._context.counters, found.progress.values()
        dead_lettered = sum(one.dead_lettered for one in progress)
        deduplicated = sum(one.deduplicated for one in progress)
        counters.archived += len(plan.records)
        counters.archived_bytes += sum(len(line) for lines in plan.content.folders.values() for line in lines)
        counters.deduplicated += deduplicated
        counters.conflicts += plan.conflicts
        counters.erased += sum(one.erased for one in progress)
        counters.dead_lettered += dead_lettered
        counters.sequence_holes += sum(one.holes for one in progress)
        counters.missing += sum(one.missing for one in progress)
        counters.commits += 1
        counters.commit_s += duration_s
        for note in found.notes:
            self._context.notify(note)
        self._context.notify(Committed(len(plan.records), deduplicated, dead_lettered, duration_s))


def _events(producer: str, entry: Entry, first_seq: int) -> Iterator[tuple[EventPosition, bytes]]:
    # An entry that is not a batch becomes a dead letter without being read.
    with suppress(BadBatchError):
        batch = from_entry(entry)
        for seq, line in enumerate(batch.lines, batch.first_seq):
            if seq >= first_seq:
                yield EventPosition(producer, batch.epoch, seq), line
