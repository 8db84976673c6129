"""What an operator may choose about telemetry: two tables, each field with its default, unit and a sentence.

Nothing here reads the environment; the service does that once and hands these tables down.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerSettings:
    """How a replica holds and ships its events."""

    batch_events: int = field(
        default=500,
        metadata={
            "env": "RECOLLECT_TELEMETRY_BATCH_EVENTS",
            "unit": "events",
            "doc": "The most events in one stream entry.",
        },
    )
    batch_bytes: int = field(
        default=192 * 1024,
        metadata={
            "env": "RECOLLECT_TELEMETRY_BATCH_BYTES",
            "unit": "bytes",
            "doc": "The most bytes in one stream entry; a single larger event travels alone.",
        },
    )
    linger_s: float = field(
        default=0.01,
        metadata={
            "env": "RECOLLECT_TELEMETRY_LINGER_S",
            "unit": "s",
            "doc": "The shortest time between two batches that are not full; a longer one gathers more feedback.",
        },
    )
    spool_bytes: int = field(
        default=256 * 1024 * 1024,
        metadata={
            "env": "RECOLLECT_SPOOL_BYTES",
            "unit": "bytes",
            "doc": "The budget of a replica's write-ahead log, at least 1 MiB: events that are not in the archive yet.",
            "least": 1024 * 1024,
        },
    )
    segment_bytes: int = field(
        default=16 * 1024 * 1024,
        metadata={
            "env": "RECOLLECT_SPOOL_SEGMENT_BYTES",
            "unit": "bytes",
            "doc": "The size of a file of the log, at least 64 KiB; at most an eighth of the budget and of the disk's "
            "free room is taken.",
            "least": 64 * 1024,
        },
    )
    segment_age_s: float = field(
        default=15.0,
        metadata={
            "env": "RECOLLECT_SPOOL_SEGMENT_AGE_S",
            "unit": "s",
            "doc": "When a file of the log is closed, full or not, so that it goes once the archive has its events.",
        },
    )
    ring_bytes: int = field(
        default=8 * 1024 * 1024,
        metadata={
            "env": "RECOLLECT_SPOOL_RING_BYTES",
            "unit": "bytes",
            "doc": "The size of a new slot's ring, at least 64 KiB, which holds what the disk has not synced yet.",
            "least": 64 * 1024,
        },
    )
    commit_interval_s: float = field(
        default=0.1,
        metadata={
            "env": "RECOLLECT_SPOOL_COMMIT_INTERVAL_S",
            "unit": "s",
            "doc": "How long a served event, which is safe from a kill, may wait to be safe from a power cut, too; "
            "feedback waits for nothing but the disk.",
        },
    )
    accept_timeout_s: float = field(
        default=0.4,
        metadata={
            "env": "RECOLLECT_SPOOL_ACCEPT_TIMEOUT_S",
            "unit": "s",
            "doc": "How long feedback waits for the disk before it is answered 503; must be below "
            "RECOLLECT_EVENTS_TIMEOUT_MS, or nginx gives up first.",
        },
    )
    served_share: float = field(
        default=0.8,
        metadata={
            "env": "RECOLLECT_TELEMETRY_SERVED_SHARE",
            "unit": "1",
            "doc": "The share of the budget that served events may fill; the rest is kept for feedback.",
        },
    )
    check_interval_s: float = field(
        default=1.0,
        metadata={
            "env": "RECOLLECT_TELEMETRY_CHECK_INTERVAL_S",
            "unit": "s",
            "doc": "How often the shipper asks Redis what it still has and what is archived.",
        },
    )
    backoff_s: float = field(
        default=1.0,
        metadata={
            "env": "RECOLLECT_TELEMETRY_BACKOFF_S",
            "unit": "s",
            "doc": "The longest pause between two attempts to reach Redis.",
        },
    )
    retry_after_s: float = field(
        default=1.0,
        metadata={
            "env": "RECOLLECT_TELEMETRY_RETRY_AFTER_S",
            "unit": "s",
            "doc": "When a client whose feedback found no room should try again.",
        },
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerSettings:
    """How the consumer job reads and commits."""

    discover_interval_s: float = field(
        default=1.0,
        metadata={
            "env": "RECOLLECT_CONSUMER_DISCOVER_INTERVAL_S",
            "unit": "s",
            "doc": "How often the set of producers is read and the watermarks are published again.",
        },
    )
    block_ms: int = field(
        default=500,
        metadata={
            "env": "RECOLLECT_CONSUMER_BLOCK_MS",
            "unit": "ms",
            "doc": "How long one read waits for new entries, below the Redis deadline of 2 s.",
            "most": 1999,
        },
    )
    read_entries: int = field(
        default=16,
        metadata={
            "env": "RECOLLECT_CONSUMER_READ_ENTRIES",
            "unit": "entries",
            "doc": "The most stream entries taken from one producer in one read.",
        },
    )
    commit_interval_s: float = field(
        default=0.025,
        metadata={
            "env": "RECOLLECT_CONSUMER_COMMIT_INTERVAL_S",
            "unit": "s",
            "doc": "The shortest time between two commits; a longer one costs freshness and saves CPU and disk.",
        },
    )
    heartbeat_s: float = field(
        default=1.0,
        metadata={
            "env": "RECOLLECT_CONSUMER_HEARTBEAT_S",
            "unit": "s",
            "doc": "How often the holder of the archive's lease shows that it lives.",
        },
    )
    takeover_s: float = field(
        default=4.0,
        metadata={
            "env": "RECOLLECT_CONSUMER_TAKEOVER_S",
            "unit": "s",
            "doc": "How long a lease must stand still before a standby takes it; at least twice "
            "RECOLLECT_CONSUMER_HEARTBEAT_S.",
        },
    )
    part_bytes: int = field(
        default=64 * 1024 * 1024,
        metadata={
            "env": "RECOLLECT_ARCHIVE_PART_BYTES",
            "unit": "bytes",
            "doc": "The size at which a file of the archive is sealed and another begun.",
        },
    )
    part_s: float = field(
        default=900.0,
        metadata={
            "env": "RECOLLECT_ARCHIVE_PART_S",
            "unit": "s",
            "doc": "The age at which a file of the archive is sealed and another begun.",
        },
    )
    retention_days: int = field(
        default=0,
        metadata={
            "env": "RECOLLECT_ARCHIVE_RETENTION_DAYS",
            "unit": "days",
            "doc": "How many UTC dates before today the archive keeps, compacted or not; 0 keeps all.",
            "least": 0,
            "most": 36_500,
        },
    )
    retention_bytes: int = field(
        default=0,
        metadata={
            "env": "RECOLLECT_ARCHIVE_RETENTION_BYTES",
            "unit": "bytes",
            "doc": "How large the archive's files may be before the oldest compacted dates go; 0 sets no limit.",
            "least": 0,
        },
    )
    orphan_after_s: float = field(
        default=5.0,
        metadata={
            "env": "RECOLLECT_CONSUMER_ORPHAN_AFTER_S",
            "unit": "s",
            "doc": "How long a slot with events must have been held by no process before the consumer job ships them.",
        },
    )
    gap_patience_s: float = field(
        default=604_800.0,
        metadata={
            "env": "RECOLLECT_CONSUMER_GAP_PATIENCE_S",
            "unit": "s",
            "doc": "How long events wait behind others that Redis lost and a producer that is not heard of may still"
            " hold, before those are written off as missing.",
        },
    )
    seen_days: int = field(
        default=7,
        metadata={
            "env": "RECOLLECT_CONSUMER_SEEN_DAYS",
            "unit": "days",
            "doc": "How long an event id is remembered to remove duplicated feedback.",
        },
    )
    erase_interval_s: float = field(
        default=10.0,
        metadata={
            "env": "RECOLLECT_CONSUMER_ERASE_INTERVAL_S",
            "unit": "s",
            "doc": "The least pause between two rounds of erasing; what is asked for meanwhile is done together.",
        },
    )
    backoff_s: float = field(
        default=1.0,
        metadata={
            "env": "RECOLLECT_CONSUMER_BACKOFF_S",
            "unit": "s",
            "doc": "The longest pause between two attempts to reach Redis or a failing disk.",
        },
    )
