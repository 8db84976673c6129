"""What an operator may choose about telemetry: three tables, each field with its default, unit and a sentence.

Nothing here reads the environment; the service does that once and hands these tables down.
"""

from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerSettings:
    """How a replica holds and ships its events."""

    batch_events: Annotated[
        int, {"env": "RECOLLECT_TELEMETRY_BATCH_EVENTS", "unit": "events"}, "The most events in one stream entry."
    ] = 500
    batch_bytes: Annotated[
        int,
        {"env": "RECOLLECT_TELEMETRY_BATCH_BYTES", "unit": "bytes"},
        "The most bytes in one stream entry; a single larger event travels alone.",
    ] = 192 * 1024
    linger_s: Annotated[
        float,
        {"env": "RECOLLECT_TELEMETRY_LINGER_S", "unit": "s"},
        "The shortest time between two batches that are not full; a longer one gathers more feedback.",
    ] = 0.01
    spool_bytes: Annotated[
        int,
        {"env": "RECOLLECT_SPOOL_BYTES", "unit": "bytes", "least": 1024 * 1024},
        "The budget of a replica's write-ahead log, at least 1 MiB: events that are not in the archive yet.",
    ] = 256 * 1024 * 1024
    segment_bytes: Annotated[
        int,
        {"env": "RECOLLECT_SPOOL_SEGMENT_BYTES", "unit": "bytes", "least": 64 * 1024},
        "The size of a segment, at least 64 KiB; at most an eighth of the budget and of the disk's free space "
        "is taken.",
    ] = 16 * 1024 * 1024
    segment_age_s: Annotated[
        float,
        {"env": "RECOLLECT_SPOOL_SEGMENT_AGE_S", "unit": "s"},
        "The age at which a segment is closed, full or not, so that it is released once the archive has its events.",
    ] = 15.0
    ring_bytes: Annotated[
        int,
        {"env": "RECOLLECT_SPOOL_RING_BYTES", "unit": "bytes", "least": 64 * 1024},
        "The size of a new slot's ring buffer, at least 64 KiB, which holds what the disk has not synced yet.",
    ] = 8 * 1024 * 1024
    commit_interval_s: Annotated[
        float,
        {"env": "RECOLLECT_SPOOL_COMMIT_INTERVAL_S", "unit": "s"},
        "How long a served event may wait for fdatasync; until then it survives a kill and not a power cut. "
        "Feedback is committed at once.",
    ] = 0.1
    accept_timeout_s: Annotated[
        float,
        {"env": "RECOLLECT_SPOOL_ACCEPT_TIMEOUT_S", "unit": "s"},
        "How long feedback waits for the disk before it is answered 503; must be below "
        "RECOLLECT_EVENTS_TIMEOUT_MS, or nginx gives up first.",
    ] = 0.4
    served_share: Annotated[
        float,
        {"env": "RECOLLECT_TELEMETRY_SERVED_SHARE", "unit": "1", "least": 0, "most": 1},
        "The share of the budget that served events may fill; the rest is kept for feedback.",
    ] = 0.8
    check_interval_s: Annotated[
        float,
        {"env": "RECOLLECT_TELEMETRY_CHECK_INTERVAL_S", "unit": "s"},
        "How often the shipper asks Redis what it still has and what is archived.",
    ] = 1.0
    backoff_s: Annotated[
        float,
        {"env": "RECOLLECT_TELEMETRY_BACKOFF_S", "unit": "s"},
        "The longest pause between two attempts to reach Redis.",
    ] = 1.0
    retry_after_s: Annotated[
        float,
        {"env": "RECOLLECT_TELEMETRY_RETRY_AFTER_S", "unit": "s"},
        "The `Retry-After` of feedback that is refused for lack of room.",
    ] = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerSettings:
    """How the consumer job reads and commits."""

    discover_interval_s: Annotated[
        float,
        {"env": "RECOLLECT_CONSUMER_DISCOVER_INTERVAL_S", "unit": "s"},
        "How often the set of producers is read and the watermarks are published again.",
    ] = 1.0
    block_ms: Annotated[
        int,
        {"env": "RECOLLECT_CONSUMER_BLOCK_MS", "unit": "ms", "most": 1999},
        "How long one read waits for new entries, below the Redis deadline of 2 s.",
    ] = 500
    read_entries: Annotated[
        int,
        {"env": "RECOLLECT_CONSUMER_READ_ENTRIES", "unit": "entries"},
        "The most stream entries taken from one producer in one read.",
    ] = 16
    commit_interval_s: Annotated[
        float,
        {"env": "RECOLLECT_CONSUMER_COMMIT_INTERVAL_S", "unit": "s"},
        "The shortest time between two commits; a longer one saves CPU and disk and delays events.",
    ] = 0.025
    heartbeat_s: Annotated[
        float,
        {"env": "RECOLLECT_CONSUMER_HEARTBEAT_S", "unit": "s"},
        "How often the holder of the archive's lease renews its heartbeat.",
    ] = 1.0
    takeover_s: Annotated[
        float,
        {"env": "RECOLLECT_CONSUMER_TAKEOVER_S", "unit": "s"},
        "How long a lease may be without a heartbeat before a standby takes over; at least twice "
        "RECOLLECT_CONSUMER_HEARTBEAT_S.",
    ] = 4.0
    part_bytes: Annotated[
        int,
        {"env": "RECOLLECT_ARCHIVE_PART_BYTES", "unit": "bytes"},
        "The size at which a file of the archive is sealed and another begun.",
    ] = 64 * 1024 * 1024
    part_s: Annotated[
        float,
        {"env": "RECOLLECT_ARCHIVE_PART_S", "unit": "s"},
        "The age at which a file of the archive is sealed and another begun.",
    ] = 900.0
    retention_days: Annotated[
        int,
        {"env": "RECOLLECT_ARCHIVE_RETENTION_DAYS", "unit": "days", "least": 0, "most": 36_500},
        "How many UTC dates before today the archive keeps, compacted or not; 0 keeps all.",
    ] = 0
    retention_bytes: Annotated[
        int,
        {"env": "RECOLLECT_ARCHIVE_RETENTION_BYTES", "unit": "bytes", "least": 0},
        "How large the archive's files may be before the oldest compacted dates go; 0 sets no limit.",
    ] = 0
    orphan_after_s: Annotated[
        float,
        {"env": "RECOLLECT_CONSUMER_ORPHAN_AFTER_S", "unit": "s"},
        "How long a slot with events must have been held by no process before the consumer job ships them.",
    ] = 5.0
    gap_patience_s: Annotated[
        float,
        {"env": "RECOLLECT_CONSUMER_GAP_PATIENCE_S", "unit": "s"},
        "How long events behind a stream gap wait for a handshake of their producer, before the lost ones are "
        "written off as missing.",
    ] = 604_800.0
    seen_days: Annotated[
        int,
        {"env": "RECOLLECT_CONSUMER_SEEN_DAYS", "unit": "days"},
        "How long event ids are kept to remove duplicates of feedback.",
    ] = 7
    erase_interval_s: Annotated[
        float,
        {"env": "RECOLLECT_CONSUMER_ERASE_INTERVAL_S", "unit": "s"},
        "The least pause between two rounds of erasing; requests that arrive meanwhile are handled together.",
    ] = 10.0
    backoff_s: Annotated[
        float,
        {"env": "RECOLLECT_CONSUMER_BACKOFF_S", "unit": "s"},
        "The longest pause between two attempts to reach Redis or a failing disk.",
    ] = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSettings:
    """What the consumer keeps of each user for live lists; replicas follow it."""

    events_per_user: Annotated[
        int,
        {"env": "RECOLLECT_LIVE_EVENTS", "unit": "events", "least": 1, "most": 10_000},
        "How many of a user's last events lists answer to; with more, the state is read from the archive again.",
    ] = 100
    days: Annotated[
        int,
        {"env": "RECOLLECT_LIVE_DAYS", "unit": "days", "least": 1, "most": 36_500},
        "How many days an event counts before today; with more, the state is read from the archive again.",
    ] = 365
    impressions: Annotated[
        bool,
        {"env": "RECOLLECT_LIVE_IMPRESSIONS", "unit": "true or false"},
        "Whether reported impressions count among a user's last events.",
    ] = False
    state_bytes: Annotated[
        int,
        {"env": "RECOLLECT_LIVE_STATE_BYTES", "unit": "bytes", "least": 1024 * 1024},
        "How large the state snapshot may be, at least 1 MiB; beyond it the oldest events of all users go.",
    ] = 400_000_000
    snapshot_interval_s: Annotated[
        float,
        {"env": "RECOLLECT_LIVE_SNAPSHOT_INTERVAL_S", "unit": "s"},
        "How long changes wait until a snapshot has them; the feed has them at once.",
    ] = 10.0
    feed_bytes: Annotated[
        int,
        {"env": "RECOLLECT_LIVE_FEED_BYTES", "unit": "bytes", "least": 64 * 1024},
        "How much the feed in Redis holds, at least 64 KiB; replicas that are further behind read the snapshot.",
    ] = 16 * 1024 * 1024
