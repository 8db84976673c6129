"""The counters of telemetry, each with its unit in its name.

Counters watch a process; they prove nothing about the archive, whose receipt is in its catalogue. Invariants: offered =
accepted + refused + dropped for each class, and recovered + accepted (all classes) = released + relinquished +
spooled_events.
"""

from dataclasses import dataclass, field

from telemetry.events import Event, Feedback, Served


@dataclass(slots=True)
class ClassCounters:
    """Events of one class."""

    offered: int = 0
    accepted: int = 0
    refused: int = 0
    dropped: int = 0


@dataclass(slots=True)
class ProducerCounters:
    """One replica's telemetry.

    Attributes:
        served: Served lists.
        feedback: Feedback.
        system: System events.
        recovered: Events that earlier processes left in the slot.
        shipped: Events that Redis confirmed; an event counts again when a rewind sends it again.
        batches: Stream entries that Redis confirmed.
        in_flight: Events in the batch that is not confirmed yet.
        released: Archived events that were removed from the write-ahead log, by whole segments.
        relinquished: Events that stayed behind with an old stream when the identity changed.
        unarchived_events: Events held that the archive is not known to have.
        spooled_events: Events held.
        spooled_bytes: Their bytes of the budget.
        rewinds: How often events that Redis lost were sent again.
        reconnects: Connections made after the first.
        watermarks_doubted: How often a watermark was rejected, because its seal is not valid.
        identity_changes: New epochs or producer ids while running.
        identity_conflicts: Those of them because another process wrote under the same id: an alarm.
        connected: Whether the stream answers now.
        last_error: The last failure of the stream, or None.
    """

    served: ClassCounters = field(default_factory=ClassCounters)
    feedback: ClassCounters = field(default_factory=ClassCounters)
    system: ClassCounters = field(default_factory=ClassCounters)
    recovered: int = 0
    shipped: int = 0
    batches: int = 0
    in_flight: int = 0
    released: int = 0
    relinquished: int = 0
    unarchived_events: int = 0
    spooled_events: int = 0
    spooled_bytes: int = 0
    rewinds: int = 0
    reconnects: int = 0
    watermarks_doubted: int = 0
    identity_changes: int = 0
    identity_conflicts: int = 0
    connected: bool = False
    last_error: str | None = None

    def for_class_of(self, event: Event) -> ClassCounters:
        """Return the counters of an event's class."""
        return (
            self.served if isinstance(event, Served) else self.feedback if isinstance(event, Feedback) else self.system
        )


@dataclass(slots=True)
class ConsumerCounters:
    """The consumer job since it started.

    Attributes:
        archived: Events committed to the archive.
        archived_bytes: Their bytes.
        deduplicated: Feedback removed as a duplicate within the window.
        conflicts: Feedback archived with a mark, because its user used its id for another event within the window.
        dead_lettered: Events committed to the dead letters.
        erased: Lines removed, and events not archived, because their user is erased.
        users_erased: Users erased.
        retired: Archived events that retention removed.
        redelivered: Events delivered again after their commit, and skipped.
        sequence_holes: Gaps in a producer's numbers.
        missing: The numbers in them.
        trimmed_pending: Entries that Redis trimmed before they were read: an alarm.
        gaps: How often Redis lost entries of a stream, which its producer then began anew.
        commits: Transactions.
        commit_s: Time spent in them.
        reconnects: Connections made after the first.
        sink_failures: How often a sink raised.
        producers: Producers known now.
        active: Whether this consumer holds the lease.
        connected: Whether the stream answers now.
        last_error: The last failure of the stream or the archive, or None.
    """

    archived: int = 0
    archived_bytes: int = 0
    deduplicated: int = 0
    conflicts: int = 0
    dead_lettered: int = 0
    erased: int = 0
    users_erased: int = 0
    retired: int = 0
    redelivered: int = 0
    sequence_holes: int = 0
    missing: int = 0
    trimmed_pending: int = 0
    gaps: int = 0
    commits: int = 0
    commit_s: float = 0.0
    reconnects: int = 0
    sink_failures: int = 0
    producers: int = 0
    active: bool = False
    connected: bool = False
    last_error: str | None = None
