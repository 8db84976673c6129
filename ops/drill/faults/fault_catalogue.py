"""The catalogue of faults: those of docs/promises.md that a live drill can do, and selection by name or row.

The invariant: a fault is one line here. What the line promises is that row's promise; where a live drill can measure
only a part of it, the text names that part and no other.
"""

from collections.abc import Sequence
from itertools import combinations

from ops.drill.faults import disk_faults, redis_faults, signal_faults
from ops.drill.faults.fault import Fault, Setting
from ops.drill.faults.promise import Promise
from ops.drill.faults.proxy import Mode
from ops.drill.needs import Need, RunningParts
from ops.drill.system import CONSUMER, REDIS
from service.errors import UsageError

Targets = list[tuple[str, ...]]


def _anything(parts: RunningParts) -> Targets:
    single = [*parts.replicas, *parts.balancers, *(f"{name}/worker" for name in parts.balancers)]
    single += [name for name, there in ((REDIS, parts.redis), (CONSUMER, parts.consumer)) if there]
    return [(name,) for name in single]


def _pairs(parts: RunningParts) -> Targets:
    pairs: Targets = list(combinations(parts.replicas, 2)) if len(parts.replicas) >= 3 else []
    if parts.redis:
        pairs += [(name, REDIS) for name in (*parts.replicas, *parts.balancers[:1])]
        pairs += [(CONSUMER, REDIS)] if parts.consumer else []
    return pairs


def _a_replica(parts: RunningParts) -> Targets:
    return [(name,) for name in parts.replicas]


def _all_replicas(parts: RunningParts) -> Targets:
    return [parts.replicas] if parts.replicas else []


def _all_balancers(parts: RunningParts) -> Targets:
    return [parts.balancers] if parts.balancers else []


def _the_consumer(parts: RunningParts) -> Targets:
    return [(CONSUMER,)] if parts.consumer else []


def _the_redis(_parts: RunningParts) -> Targets:
    return [(REDIS,)]


def _a_clock(parts: RunningParts) -> Targets:
    return [*_a_replica(parts), (REDIS,), *_the_consumer(parts)]


_KILLS = Promise(
    text="no request fails with one retry, at most 0.15 % without; p99 <= 100 ms; a killed part is ready in 1.5 s",
    raw_share=0.0015,
    p99_ms=100,
    ready_s=1.5,
)
_REDIS_AWAY = Promise(
    text="no request fails, feedback is still taken; lists' p99 at most 10 % up; caught up in 10 s and a quarter of "
    "the time that it lasted",
    p99_growth=0.10,
    caught_up_s=10,
    drain_times=5,
)
_AMNESIA = Promise(text="no request fails; what Redis forgot is sent again, in 10 s", caught_up_s=10)
_CONSUMER = Promise(
    text="no request fails; nothing doubled; a standby takes over in 5 s; caught up in 10 s", caught_up_s=10
)
_DISK = Promise(
    text="lists are untouched; feedback is refused with Retry-After, never taken and lost; taken again in 5 s",
    refusals=True,
    p99_growth=0.10,
    taken_again_s=5,
)
_CLOCK = Promise(text="no request fails; what was on its way moves on in 10 s", caught_up_s=10)
_LOGS = Promise(text="no request fails; p99 at most 5 % up; no telemetry in the logs", p99_growth=0.05)

FAULTS: tuple[Fault, ...] = (
    Fault("kill-any", "R1", "kill -9 one part or nginx worker", _KILLS, _anything, signal_faults.kill, every_s=2),
    Fault(
        "kill-pairs",
        "R2",
        "kill -9 two parts at once",
        Promise(text="no request fails with two retries; p99 <= 100 ms", retries=2, p99_ms=100),
        _pairs,
        signal_faults.kill,
        every_s=5,
        needs=(Need.THREE_REPLICAS,),
    ),
    Fault(
        "rolling-restart",
        "R3",
        "restart every replica in turn",
        Promise(text="no request fails, even without a retry", retries=0),
        _all_replicas,
        signal_faults.restart_in_turn,
        every_s=10,
    ),
    Fault(
        "freeze-replica",
        "R4",
        "SIGSTOP a replica",
        Promise(
            text="no request fails, even without a retry; no list takes longer than 600 ms", retries=0, list_max_ms=600
        ),
        _a_replica,
        signal_faults.freeze,
        every_s=20,
        hold_s=10,
    ),
    Fault(
        "reload",
        "R6",
        "reload nginx",
        Promise(text="no request fails with one retry, at most 1 in 5,000 without", raw_share=1 / 5000),
        _all_balancers,
        signal_faults.reload,
        every_s=2,
    ),
    Fault(
        "redis-frozen",
        "R7",
        "SIGSTOP Redis",
        _REDIS_AWAY,
        _the_redis,
        signal_faults.freeze,
        every_s=120,
        hold_s=60,
        needs=(Need.REDIS,),
    ),
    *(
        Fault(
            f"redis-{name}",
            "R7",
            title,
            _REDIS_AWAY,
            _the_redis,
            do,
            every_s=120,
            hold_s=60,
            setting=Setting.ANY if need is Need.REDIS else Setting.PREPARED,
            needs=(need,),
        )
        for name, title, do, need in (
            ("oom", "Redis is out of memory", redis_faults.out_of_memory, Need.REDIS),
            ("readonly", "Redis takes no writes (READONLY)", redis_faults.read_only, Need.REDIS),
            ("misconf", "Redis cannot write its disk (MISCONF)", redis_faults.misconf, Need.OWN_REDIS),
            ("refused", "Redis refuses connections", redis_faults.link(Mode.REFUSED), Need.LINK),
            ("silent", "the network to Redis drops everything", redis_faults.link(Mode.SILENT), Need.LINK),
            ("slow", "64 KiB/s to and from Redis", redis_faults.link(Mode.SLOW), Need.LINK),
            ("lossy", "Redis' replies are lost after it did as told", redis_faults.link(Mode.LOSSY), Need.LINK),
            ("sliced", "Redis' bytes arrive one by one", redis_faults.link(Mode.SLICED), Need.LINK),
        )
    ),
    Fault("redis-flushed", "R8", "FLUSHALL", _AMNESIA, _the_redis, redis_faults.flush, every_s=10, needs=(Need.REDIS,)),
    Fault(
        "redis-wiped",
        "R8",
        "remove Redis' files and kill it",
        _AMNESIA,
        _the_redis,
        redis_faults.wipe,
        every_s=10,
        needs=(Need.REDIS_FILES,),
    ),
    Fault(
        "redis-restored",
        "R8",
        "Redis comes back from an old copy of its files",
        _AMNESIA,
        _the_redis,
        redis_faults.restore_old,
        every_s=15,
        hold_s=5,
        needs=(Need.REDIS_FILES,),
    ),
    Fault(
        "stream-renamed",
        "R8",
        "rename a stream away",
        _AMNESIA,
        _the_redis,
        redis_faults.rename_stream,
        every_s=10,
        needs=(Need.REDIS,),
    ),
    Fault("kill-consumer", "R9", "kill -9 the consumer", _CONSUMER, _the_consumer, signal_faults.kill, every_s=2),
    Fault(
        "consumer-zombie",
        "R9",
        "SIGSTOP the consumer until a standby took over",
        _CONSUMER,
        _the_consumer,
        signal_faults.zombie,
        every_s=60,
        hold_s=10,
    ),
    Fault(
        "spool-full",
        "R11",
        "the spool's disk is full",
        _DISK,
        _all_replicas,
        disk_faults.full(lambda prepared: prepared.spool_disk),
        every_s=120,
        hold_s=60,
        setting=Setting.PREPARED,
        needs=(Need.SPOOL_DISK,),
    ),
    Fault(
        "spool-failing",
        "R11",
        "one fdatasync of a replica fails with EIO",
        _DISK,
        _a_replica,
        disk_faults.traced("fdatasync:error=EIO:when=1"),
        every_s=20,
        hold_s=5,
        needs=(Need.STRACE,),
    ),
    Fault(
        "spool-slow",
        "R11",
        "every fdatasync of a replica takes 1.5 s",
        _DISK,
        _a_replica,
        disk_faults.traced("fdatasync:delay_exit=1500000"),
        every_s=40,
        hold_s=20,
        needs=(Need.STRACE,),
    ),
    *(
        Fault(
            f"clock-{name}",
            "R13",
            f"a part's wall clock is an hour {name}",
            _CLOCK,
            _a_clock,
            disk_faults.clock(seconds),
            every_s=20,
            hold_s=10,
            setting=Setting.PREPARED,
            needs=(Need.CLOCKS,),
        )
        for name, seconds in (("ahead", 3600), ("behind", -3600))
    ),
    Fault(
        "log-full",
        "R19",
        "the logs' disk is full",
        _LOGS,
        _all_replicas,
        disk_faults.full(lambda prepared: prepared.log_disk),
        every_s=120,
        hold_s=60,
        setting=Setting.PREPARED,
        needs=(Need.LOG_DISK,),
    ),
    Fault(
        "log-stuck",
        "R19",
        "the system's output is not read, and a replica dies again and again",
        _LOGS,
        _a_replica,
        signal_faults.kill_while_stuck,
        every_s=120,
        hold_s=60,
        setting=Setting.PREPARED,
        needs=(Need.OUTPUT,),
    ),
    Fault(
        "replicas-dead",
        "R22",
        "kill every replica as soon as it starts",
        Promise(
            text="lists from nginx, none fails; feedback is refused with Retry-After and taken again in 10 s",
            refusals=True,
            taken_again_s=10,
        ),
        _all_replicas,
        signal_faults.hold_down,
        every_s=90,
        hold_s=30,
    ),
)

MAIN = ("kill-any", "kill-pairs", "rolling-restart", "freeze-replica", "reload", "redis-frozen", "redis-wiped",
        "consumer-zombie", "replicas-dead")  # fmt: skip
QUICK = ("kill-any", "freeze-replica", "reload", "redis-wiped", "kill-consumer")
# Rows that no live drill can do, and where they are done instead.
ELSEWHERE = {
    "R10": "power loss: the property tests of the spool do it, on a file system that loses what was not synced",
    "R12": "damage to the spool: the property tests of the spool do it; live, what was damaged could not be told",
}


def select(words: str) -> list[Fault]:
    """Return the faults that `--faults` names, in the catalogue's order.

    Args:
        words: Names, rows such as R7, `all`, `main` or `quick`, with commas between.

    Raises:
        UsageError: A word is none of these.
    """
    wanted: set[str] = set()
    for word in (part.strip() for part in words.split(",")):
        found = _named(word)
        if not found:
            names = ", ".join(fault.name for fault in FAULTS)
            why = f" {ELSEWHERE[word.upper()]}." if word.upper() in ELSEWHERE else ""
            raise UsageError(f"--faults knows no {word!r}.{why} It takes all, main, quick, rows (R1 ...), or {names}.")
        wanted.update(found)
    return [fault for fault in FAULTS if fault.name in wanted]


def _named(word: str) -> Sequence[str]:
    if word in {"all", "main", "quick"}:
        return {"all": tuple(fault.name for fault in FAULTS), "main": MAIN, "quick": QUICK}[word]
    return [fault.name for fault in FAULTS if word == fault.name or word.upper() == fault.row]
