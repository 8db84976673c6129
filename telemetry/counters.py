"""The counters of telemetry, each with its unit in its name.

Counters watch a process; they prove nothing about the archive, whose counts are in its catalogue. Invariants: offered =
accepted + refused + dropped for each class, and recovered + accepted (all classes) = released + relinquished +
spooled_events.
"""

from dataclasses import dataclass, field

from telemetry.events import Event, Feedback, ItemChange, Served, System


@dataclass(slots=True)
class ClassCounters:
    """Events of one class."""

    offered: int = 0
    accepted: int = 0
    refused: int = 0
    dropped: int = 0


@dataclass(slots=True)
class ProducerCounters:
    """One replica's telemetry."""

    served: ClassCounters = field(default_factory=ClassCounters)
    feedback: ClassCounters = field(default_factory=ClassCounters)
    system: ClassCounters = field(default_factory=ClassCounters)
    item: ClassCounters = field(default_factory=ClassCounters)
    recovered: int = 0  # Events that earlier processes left in the slot.
    shipped: int = 0  # Events that Redis confirmed; an event counts again when a rewind sends it again.
    batches: int = 0  # Stream entries that Redis confirmed.
    in_flight: int = 0  # Events in the batch that is not confirmed yet.
    released: int = 0  # Archived events that were removed from the write-ahead log, by whole segments.
    relinquished: int = 0  # Events that stayed behind with an old stream when the identity changed.
    unarchived_events: int = 0  # Events held that the archive is not known to have.
    spooled_events: int = 0  # Events held.
    spooled_bytes: int = 0  # Their bytes of the budget.
    rewinds: int = 0  # How often events that Redis lost were sent again.
    reconnects: int = 0  # Connections made after the first.
    watermarks_doubted: int = 0  # How often a watermark was rejected, because its seal is not valid.
    identity_changes: int = 0  # New epochs or producer ids while running.
    identity_conflicts: int = 0  # Those of them because another process wrote under the same id: an alarm.
    connected: bool = False  # Whether the stream answers now.
    last_error: str | None = None  # The last failure of the stream, or None.

    def for_class_of(self, event: Event) -> ClassCounters:
        """Return the counters of an event's class."""
        return {Served: self.served, Feedback: self.feedback, System: self.system, ItemChange: self.item}[type(event)]


@dataclass(slots=True)
class ConsumerCounters:
    """The consumer job since it started."""

    archived: int = 0  # Events committed to the archive.
    archived_bytes: int = 0  # Their bytes.
    deduplicated: int = 0  # Feedback removed as a duplicate within the window.
    conflicts: int = 0  # Feedback archived with a mark, because its user used its id for another event before.
    dead_lettered: int = 0  # Events committed to the dead letters.
    erased: int = 0  # Lines removed, and events not archived, because their user is erased.
    users_erased: int = 0
    retired: int = 0  # Archived events that retention removed.
    redelivered: int = 0  # Events delivered again after their commit, and skipped.
    sequence_holes: int = 0  # Gaps in a producer's numbers.
    missing: int = 0  # The numbers in them.
    trimmed_pending: int = 0  # Entries that Redis trimmed before they were read: an alarm.
    gaps: int = 0  # How often Redis lost entries of a stream, which its producer then began again.
    commits: int = 0  # Transactions.
    commit_s: float = 0.0  # Time spent in them.
    reconnects: int = 0  # Connections made after the first.
    sink_failures: int = 0  # How often a sink raised.
    producers: int = 0  # Producers known now.
    active: bool = False  # Whether this consumer holds the lease.
    connected: bool = False  # Whether the stream answers now.
    last_error: str | None = None  # The last failure of the stream or the archive, or None.


@dataclass(slots=True)
class LiveCounters:
    """The live state of the consumer that holds the lease."""

    events: int = 0  # Live events handled.
    feed_entries: int = 0  # Entries appended to the feed.
    feed_bytes: int = 0  # Their bytes.
    generations: int = 0  # Generations begun.
    generation: int = 0  # The present one; 0 before the first.
    feed_connected: bool = False  # Whether the feed can be appended to now.
    restored: bool = False  # Whether the state is that of the archive.
    catch_up_events: int = 0  # Live events read from the archive to restore it.
    rebuilds: int = 0  # How often all of it was made from the archive.
    snapshots: int = 0  # Snapshots saved.
    snapshot_s: float = 0.0  # Time spent on saving them.
    snapshot_failures: int = 0  # How often one could not be saved, or the state not be restored.
    snapshot_bytes: int = 0  # The size of the last one.
    snapshot_events: int = 0  # The events in it.
    saved_at_s: float = 0.0  # Unix time of the last one; 0 before the first.
    unsaved_events: int = 0  # Live events that no snapshot includes yet.
