"""Is a Redis fit to carry telemetry? Asked with the service's own client, options and user.

Invariant: nothing is changed. Every command that the service sends is tried on a stream that does not exist, or with
arguments that it refuses last of all; Redis checks the user's rights, its own state and its memory before that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NamedTuple

from telemetry.errors import RedisUnfitError, StreamError
from telemetry.stream.key_names import Keys
from telemetry.stream.namespace_owner import OwnerMark
from telemetry.stream.redis_connection import Command, RedisConnection, Refusal
from telemetry.stream.redis_refusals import CLUSTER, meaning
from telemetry.stream.redis_stream import GROUP

FLOOR: Final = (7, 0)
# No producer has this id: ours are UUIDs.
_NO_PRODUCER: Final = "rehearsal"


class RedisRole(Enum):
    """Who sends a command; the consumer job does what a replica does, too, for those that died."""

    REPLICA = "replica"
    CONSUMER = "consumer"


class Probe(NamedTuple):
    """A command that changes nothing, and how Redis answers it if the user may send it and it can be done."""

    side: RedisRole
    command: Command
    harmless: str | None = None

    @property
    def name(self) -> str:
        """What the command is called."""
        words = self.command[:2] if self.command[0] in {"XINFO", "XGROUP"} else self.command[:1]
        return " ".join(map(str, words))


@dataclass(frozen=True, slots=True)
class RedisReport:
    """What a Redis is to us.

    Attributes:
        where: Its address, without credentials.
        version: As it says, such as `redis 7.0.15`; None if it does not say.
        unreachable: Why it does not answer; None if it does.
        unfit: By side: what keeps it from carrying telemetry as long as its configuration is as it is.
        failing: What keeps it from that at the moment.
        risks: What it can carry telemetry with, at a risk.
        unreadable: What could not be looked at.
        mark: Whose the namespace is; None if it is unmarked.
    """

    where: str
    version: str | None = None
    unreachable: str | None = None
    unfit: Mapping[RedisRole, Sequence[str]] | None = None
    failing: Sequence[str] = ()
    risks: Sequence[str] = ()
    unreadable: Sequence[str] = ()
    mark: OwnerMark | None = None

    @property
    def warnings(self) -> list[str]:
        """What an operator should hear of a Redis that is used all the same."""
        down = self.unreachable
        waiting = [] if down is None else [f"{down}; events wait in the replicas' logs until it answers"]
        hidden = [f"its user may not look at {' and '.join(self.unreadable)}"] if self.unreadable else []
        return [*waiting, *self.failing, *self.risks, *hidden]

    def unfit_for(self, *sides: RedisRole) -> list[str]:
        """List what makes it unfit for some sides, without repeating anything."""
        unfit = self.unfit or {}
        return list(dict.fromkeys(sentence for side in sides for sentence in unfit.get(side, ())))


def probes(keys: Keys) -> list[Probe]:
    """List every command that the service sends.

    Args:
        keys: The installation's.
    """
    events, watermark = keys.events(_NO_PRODUCER), keys.watermark(_NO_PRODUCER)
    replica, consumer = RedisRole.REPLICA, RedisRole.CONSUMER
    return [
        Probe(replica, ("GET", keys.owner)),
        Probe(replica, ("ZADD", keys.producers, "XX", 0, _NO_PRODUCER)),
        Probe(replica, ("XINFO", "STREAM", events), "no such key"),
        Probe(replica, ("HMGET", watermark, "epoch", "seq")),
        Probe(replica, ("XADD", events, "NOMKSTREAM", "1-1", "first_seq", "1")),
        # Both conditions at once are a syntax error, found when everything else was.
        Probe(consumer, ("SET", keys.owner, "", "NX", "XX", "GET"), "syntax error"),
        Probe(consumer, ("ZRANGE", keys.producers, 0, 0)),
        Probe(consumer, ("XGROUP", "CREATE", events, GROUP, "0"), "requires the key to exist"),
        Probe(consumer, ("XREADGROUP", "GROUP", GROUP, GROUP, "COUNT", 1, "STREAMS", events, ">"), "NOGROUP"),
        Probe(consumer, ("XACK", events, GROUP, "1-1")),
        # An odd number of fields and values is found by the command itself.
        Probe(consumer, ("HSET", watermark, "epoch", "1", "seq"), "wrong number of arguments"),
        Probe(consumer, ("XTRIM", events, "MINID", "=", "1-1")),
        Probe(consumer, ("XRANGE", events, "-", "+", "COUNT", 1)),
        Probe(consumer, ("UNLINK", events)),
    ]


async def check_redis(url: str, namespace: str, *, timeout_s: float = 2.0) -> RedisReport:
    """Connect as the service does, and try everything that it does.

    Args:
        url: `redis://`, `rediss://` or `unix://`.
        namespace: What our keys begin with.
        timeout_s: How long each answer may take.

    Returns:
        What was found; nothing is raised for a Redis that cannot be used.

    Raises:
        StreamError: The address or the namespace is none.
    """
    connection = RedisConnection(url, timeout_s=timeout_s)
    keys = Keys(namespace)
    tried = probes(keys)
    try:
        await connection.open()
        hello, *replies = await connection.exchange(
            [
                ("HELLO",),
                ("CONFIG", "GET", "maxmemory-policy"),
                ("CONFIG", "GET", "appendonly"),
                ("INFO", "memory"),
                ("INFO", "persistence"),
                *(trial.command for trial in tried),
            ]
        )
    except RedisUnfitError as error:
        return RedisReport(connection.address, unfit={side: [str(error)] for side in RedisRole})
    except StreamError as error:
        return RedisReport(connection.address, unreachable=str(error))
    finally:
        await connection.close()
    return assess(connection.address, hello, replies[:4], list(zip(tried, replies[4:], strict=True)))


def assess(where: str, hello: Any, looks: Sequence[Any], tried: Sequence[tuple[Probe, Any]]) -> RedisReport:
    """Tell from the replies what a Redis is to us.

    Args:
        where: Its address.
        hello: The reply to HELLO, which any user may send.
        looks: The replies to the questions about its settings.
        tried: Each trial with its reply.
    """
    said = {} if isinstance(hello, Refusal) else dict(zip(hello[::2], hello[1::2], strict=True))
    version = said.get(b"version", b"").decode()
    unfit: dict[RedisRole, list[str]] = {
        side: list(_kind_faults(said.get(b"mode", b""), version)) for side in RedisRole
    }
    failing: dict[str, None] = {}
    denied: dict[RedisRole, list[str]] = {side: [] for side in RedisRole}
    # What is no single Redis refuses more than it has to be blamed for.
    for trial, reply in () if unfit[RedisRole.REPLICA] else tried:
        if not isinstance(reply, Refusal) or (trial.harmless is not None and trial.harmless in reply.text):
            continue
        sentence, lasting = meaning(reply.text)
        if reply.text.startswith("NOPERM"):
            denied[trial.side].append(trial.name)
        elif lasting:
            for side in RedisRole if trial.side is RedisRole.REPLICA else (RedisRole.CONSUMER,):
                unfit[side].append(sentence)
        else:
            failing[sentence] = None
    denied[RedisRole.CONSUMER] = denied[RedisRole.REPLICA] + denied[RedisRole.CONSUMER]
    for side, names in denied.items():
        if names:
            unfit[side].append(f"its user may not send {', '.join(names)} for the keys of a {side.value}")
    policy, policy_seen = _setting(looks[0], looks[2], "maxmemory_policy")
    append, append_seen = _setting(looks[1], looks[3], "aof_enabled")
    risks = []
    if policy is not None and policy.startswith("allkeys"):
        for faults in unfit.values():
            faults.append(f"its maxmemory-policy {policy} evicts events that are not archived; noeviction is needed")
    elif policy is not None and policy != "noeviction":
        risks.append(f"its maxmemory-policy is {policy}, which evicts none of our keys; noeviction says what is meant")
    if append in {"no", "0"}:
        risks.append("appendonly is off, so a restart loses what replicas then have to send again")
    unreadable = [] if policy_seen else ["maxmemory-policy"]
    unreadable += [] if append_seen else ["appendonly"]
    mark = next((reply for trial, reply in tried if trial.name == "GET" and isinstance(reply, bytes)), None)
    return RedisReport(
        where,
        f"{said.get(b'server', b'redis').decode()} {version}" if version else None,
        unfit=unfit,
        failing=list(failing),
        risks=risks,
        unreadable=unreadable,
        mark=None if mark is None else OwnerMark.parse(mark.decode("utf-8", "replace")),
    )


def _kind_faults(mode: bytes, version: str) -> list[str]:
    if mode == b"cluster":
        return [CLUSTER]
    if mode == b"sentinel":
        return ["it is a Redis Sentinel, which is not supported; name the Redis that it watches"]
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if numbers and numbers < FLOOR:
        return [f"its version is {version}, {'.'.join(map(str, FLOOR))} or newer is needed"]
    return []


def _setting(config: Any, info: Any, name: str) -> tuple[str | None, bool]:
    """Read a setting from CONFIG GET, or from INFO where that is denied; and whether it could be read."""
    if isinstance(config, list) and len(config) == 2:
        return config[1].decode(), True
    if isinstance(info, bytes):
        for line in info.decode("utf-8", "replace").splitlines():
            if line.startswith(f"{name}:"):
                return line.partition(":")[2], True
    return None, False
