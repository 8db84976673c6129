"""What an operator may choose about telemetry: two tables, each field with its default, unit and a sentence.

Nothing here reads the environment; the service does that once and hands these tables down.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerSettings:
    """How a replica holds and ships its events."""

    batch_events: int = field(
        default=200,
        metadata={
            "env": "RECOLLECT_TELEMETRY_BATCH_EVENTS",
            "unit": "events",
            "doc": "The most events in one stream entry.",
        },
    )
    batch_bytes: int = field(
        default=256 * 1024,
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
            "doc": "How long the shipper gathers events before it sends a batch that is not full.",
        },
    )
    buffer_bytes: int = field(
        default=64 * 1024 * 1024,
        metadata={
            "env": "RECOLLECT_TELEMETRY_BUFFER_BYTES",
            "unit": "bytes",
            "doc": "The budget for events that are not in the archive yet.",
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
            "doc": "How long one read waits for new entries; must stay below the Redis deadline of 2 s.",
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
            "doc": "How long a lease must stand still before a standby takes it.",
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
    backoff_s: float = field(
        default=1.0,
        metadata={
            "env": "RECOLLECT_CONSUMER_BACKOFF_S",
            "unit": "s",
            "doc": "The longest pause between two attempts to reach Redis or a failing disk.",
        },
    )
