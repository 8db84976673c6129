"""The fault catalogue: every fault of docs/promises.md that a live drill can inject, and their selection by name.

Invariant: the promise of a fault is that of its row. If a live drill can measure only a part of it, the text names only
that part.
"""

from collections.abc import Sequence
from itertools import combinations

from ops.drill.faults import disk_faults, redis_faults, signal_faults
from ops.drill.faults.fault import Fault, SystemKind
from ops.drill.faults.promise import Promise
from ops.drill.faults.proxy import LinkMode
from ops.drill.system.drilled_system import CONSUMER, REDIS
from ops.drill.system.needs import Need, RunningParts
from service.errors import UsageError

Targets = list[tuple[str, ...]]


def _any_process(parts: RunningParts) -> Targets:
    names = [*parts.replicas, *parts.balancers, *(f"{name}/worker" for name in parts.balancers)]
    names += [name for name, runs in ((REDIS, parts.redis), (CONSUMER, parts.consumer)) if runs]
    return [(name,) for name in names]


def _pairs(parts: RunningParts) -> Targets:
    pairs: Targets = list(combinations(parts.replicas, 2)) if len(parts.replicas) >= 3 else []
    if parts.redis:
        pairs += [(name, REDIS) for name in (*parts.replicas, *parts.balancers[:1])]
        pairs += [(CONSUMER, REDIS)] if parts.consumer else []
    return pairs


def _one_replica(parts: RunningParts) -> Targets:
    return [(name,) for name in parts.replicas]


def _all_replicas(parts: RunningParts) -> Targets:
    return [parts.replicas] if parts.replicas else []


def _all_balancers(parts: RunningParts) -> Targets:
    return [parts.balancers] if parts.balancers else []


def _consumer(parts: RunningParts) -> Targets:
    return [(CONSUMER,)] if parts.consumer else []


def _redis(_parts: RunningParts) -> Targets:
    return [(REDIS,)]


def _one_clock(parts: RunningParts) -> Targets:
    return [*_one_replica(parts), (REDIS,), *_consumer(parts)]


_KILLED = Promise(
    text="no request fails with one retry, at most 0.15 % without; p99 <= 100 ms; a killed part is ready in 1.5 s",
    raw_share=0.0015,
    p99_ms=100,
    ready_s=1.5,
)
_PAIR_KILLED = Promise(text="no request fails with two retries; p99 <= 100 ms", retries=2, p99_ms=100)
_RESTARTED = Promise(text="no request fails, even without a retry", retries=0)
_FROZEN = Promise(
    text="no request fails, even without a retry; no list takes longer than 600 ms", retries=0, list_max_ms=600
)
_RELOADED = Promise(text="no request fails with one retry, at most 1 in 5,000 without", raw_share=1 / 5000)
_REDIS_AWAY = Promise(
    text="no request fails, feedback is still accepted; lists' p99 at most 10 % up; caught up in 10 s and a quarter of "
    "the time that it lasted",
    p99_growth=0.10,
    caught_up_s=10,
    drain_factor=5,
)
_REDIS_LOSS = Promise(text="no request fails; what Redis lost is sent again, in 10 s", caught_up_s=10)
_CONSUMER_AWAY = Promise(
    text="no request fails; nothing duplicated; a standby takes over in 5 s; caught up in 10 s", caught_up_s=10
)
_SPOOL_FAULTY = Promise(
    text="lists are unaffected; feedback is refused with Retry-After, never accepted and lost; accepted again in 5 s",
    refusals=True,
    p99_growth=0.10,
    accepted_again_s=5,
)
_CLOCK_WRONG = Promise(text="no request fails; events in flight are archived in 10 s", caught_up_s=10)
_LOGS_FAULTY = Promise(text="no request fails; p99 at most 5 % up; no telemetry in the logs", p99_growth=0.05)
_NO_REPLICA = Promise(
    text="lists from nginx, none fails; feedback is refused with Retry-After and accepted again in 10 s",
    refusals=True,
    accepted_again_s=10,
)

# Names and titles of faults of Redis, with the need that a fault has.
_REDIS_FAULTS = (
    ("oom", "Redis is out of memory", redis_faults.out_of_memory, Need.REDIS),
    ("readonly", "Redis takes no writes (READONLY)", redis_faults.read_only, Need.REDIS),
    ("misconf", "Redis cannot write its disk (MISCONF)", redis_faults.misconf, Need.OWN_REDIS),
    ("refused", "Redis refuses connections", redis_faults.link(LinkMode.REFUSED), Need.LINK),
    ("silent", "the network to Redis drops everything", redis_faults.link(LinkMode.SILENT), Need.LINK),
    ("slow", "64 KiB/s to and from Redis", redis_faults.link(LinkMode.SLOW), Need.LINK),
    ("lossy", "Redis' replies are lost after their commands", redis_faults.link(LinkMode.LOSSY), Need.LINK),
    ("sliced", "Redis' bytes arrive one by one", redis_faults.link(LinkMode.SLICED), Need.LINK),
)
_INSTRUMENTED = SystemKind.INSTRUMENTED

FAULTS: tuple[Fault, ...] = (
    Fault("kill-any", "R1", "kill -9 one part or nginx worker", _KILLED, _any_process, signal_faults.kill, every_s=2),
    Fault("kill-pairs", "R2", "kill -9 two parts at once", _PAIR_KILLED, _pairs, signal_faults.kill, every_s=5,
          needs=(Need.THREE_REPLICAS,)),
    Fault("rolling-restart", "R3", "restart every replica in turn", _RESTARTED, _all_replicas,
          signal_faults.rolling_restart, every_s=10),
    Fault("freeze-replica", "R4", "SIGSTOP a replica", _FROZEN, _one_replica, signal_faults.freeze, every_s=20,
          hold_s=10),
    Fault("reload", "R6", "reload nginx", _RELOADED, _all_balancers, signal_faults.reload, every_s=2),
    Fault("redis-frozen", "R7", "SIGSTOP Redis", _REDIS_AWAY, _redis, signal_faults.freeze, every_s=120, hold_s=60,
          needs=(Need.REDIS,)),
    *(
        Fault(f"redis-{name}", "R7", title, _REDIS_AWAY, _redis, inject, every_s=120, hold_s=60,
              kind=SystemKind.DEFAULT if need is Need.REDIS else _INSTRUMENTED, needs=(need,))
        for name, title, inject, need in _REDIS_FAULTS
    ),
    Fault("redis-flushed", "R8", "FLUSHALL", _REDIS_LOSS, _redis, redis_faults.flush, every_s=10, needs=(Need.REDIS,)),
    Fault("redis-wiped", "R8", "remove Redis' files and kill it", _REDIS_LOSS, _redis, redis_faults.wipe, every_s=10,
          needs=(Need.REDIS_FILES,)),
    Fault("redis-restored", "R8", "Redis comes back from an old copy of its files", _REDIS_LOSS, _redis,
          redis_faults.restore_old, every_s=15, hold_s=5, needs=(Need.REDIS_FILES,)),
    Fault("stream-renamed", "R8", "rename a stream away", _REDIS_LOSS, _redis, redis_faults.rename_stream, every_s=10,
          needs=(Need.REDIS,)),
    Fault("kill-consumer", "R9", "kill -9 the consumer", _CONSUMER_AWAY, _consumer, signal_faults.kill, every_s=2),
    Fault("consumer-zombie", "R9", "SIGSTOP the consumer until a standby took over", _CONSUMER_AWAY, _consumer,
          signal_faults.freeze_until_takeover, every_s=60, hold_s=10),
    Fault("spool-full", "R11", "the spool's disk is full", _SPOOL_FAULTY, _all_replicas,
          disk_faults.full(lambda instruments: instruments.spool_disk), every_s=120, hold_s=60, kind=_INSTRUMENTED,
          needs=(Need.SPOOL_DISK,)),
    Fault("spool-failing", "R11", "one fdatasync of a replica fails with EIO", _SPOOL_FAULTY, _one_replica,
          disk_faults.traced("fdatasync:error=EIO:when=1"), every_s=20, hold_s=5, needs=(Need.STRACE,)),
    Fault("spool-slow", "R11", "every fdatasync of a replica takes 1.5 s", _SPOOL_FAULTY, _one_replica,
          disk_faults.traced("fdatasync:delay_exit=1500000"), every_s=40, hold_s=20, needs=(Need.STRACE,)),
    Fault("clock-ahead", "R13", "a part's wall clock is an hour ahead", _CLOCK_WRONG, _one_clock,
          disk_faults.clock(3600), every_s=20, hold_s=10, kind=_INSTRUMENTED, needs=(Need.CLOCKS,)),
    Fault("clock-behind", "R13", "a part's wall clock is an hour behind", _CLOCK_WRONG, _one_clock,
          disk_faults.clock(-3600), every_s=20, hold_s=10, kind=_INSTRUMENTED, needs=(Need.CLOCKS,)),
    Fault("log-full", "R19", "the logs' disk is full", _LOGS_FAULTY, _all_replicas,
          disk_faults.full(lambda instruments: instruments.log_disk), every_s=120, hold_s=60, kind=_INSTRUMENTED,
          needs=(Need.LOG_DISK,)),
    Fault("log-stuck", "R19", "the system's output is not read, and a replica dies again and again", _LOGS_FAULTY,
          _one_replica, signal_faults.kill_while_stuck, every_s=120, hold_s=60, kind=_INSTRUMENTED,
          needs=(Need.OUTPUT,)),
    Fault("replicas-dead", "R22", "kill every replica as soon as it starts", _NO_REPLICA, _all_replicas,
          signal_faults.keep_down, every_s=90, hold_s=30),
)  # fmt: skip

MAIN = ("kill-any", "kill-pairs", "rolling-restart", "freeze-replica", "reload", "redis-frozen", "redis-wiped",
        "consumer-zombie", "replicas-dead")  # fmt: skip
QUICK = ("kill-any", "freeze-replica", "reload", "redis-wiped", "kill-consumer")
# Rows that no live drill can inject, with the tests that cover them.
ELSEWHERE = {
    "R10": "Power loss: the property tests of the spool simulate it, on a file system that loses unsynced writes",
    "R12": "Damage to the spool: the property tests of the spool inject it; a live drill could not show what was lost",
}


def select(words: str) -> list[Fault]:
    """Return the faults that `--faults` names, in the catalogue's order: names, rows, `all`, `main` or `quick`.

    Raises:
        UsageError: A word is none of these.
    """
    selected: set[str] = set()
    for word in (part.strip() for part in words.split(",")):
        found = _names(word)
        if not found:
            names = ", ".join(fault.name for fault in FAULTS)
            why = f" {ELSEWHERE[word.upper()]}." if word.upper() in ELSEWHERE else ""
            raise UsageError(f"--faults has no {word!r}.{why} It takes all, main, quick, rows (R1 ...), or {names}.")
        selected.update(found)
    return [fault for fault in FAULTS if fault.name in selected]


def _names(word: str) -> Sequence[str]:
    if word in {"all", "main", "quick"}:
        return {"all": tuple(fault.name for fault in FAULTS), "main": MAIN, "quick": QUICK}[word]
    return [fault.name for fault in FAULTS if word == fault.name or word.upper() == fault.row]
