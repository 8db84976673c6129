"""A check whether a Redis can carry telemetry, with the service's own client, options and user.

Invariant: nothing is changed. Every command of the service is tried on a stream that does not exist, or with arguments
that Redis refuses last: it checks the user's rights, its own state and its memory first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NamedTuple

from telemetry.errors import RedisUnfitError, StreamError
from telemetry.stream.key_names import KeyNames
from telemetry.stream.namespace_owner import OwnerMark
from telemetry.stream.redis_connection import Command, Refusal
from telemetry.stream.redis_link import RedisLink
from telemetry.stream.redis_refusals import refusal_meaning
from telemetry.stream.redis_slots import N_SLOTS, RedisNode
from telemetry.stream.redis_stream import GROUP

FLOOR: Final = (7, 0)
# No producer has this id: producer ids are UUIDs.
_NO_PRODUCER: Final = "rehearsal"
# What is asked for settings; INFO has what CONFIG may be denied for.
_LOOKS: Final = (
    ("CONFIG", "GET", "maxmemory-policy"),
    ("CONFIG", "GET", "appendonly"),
    ("INFO", "memory"),
    ("INFO", "persistence"),
)
_LAYOUT: Final = ("CLUSTER", "SLOTS")


class RedisRole(Enum):
    """The sender of a command. The consumer job also sends a replica's commands, for orphaned slots."""

    REPLICA = "replica"
    CONSUMER = "consumer"


class CommandCheck(NamedTuple):
    """A command that changes nothing, and the error text that shows it is permitted and possible; None for success."""

    role: RedisRole
    command: Command
    harmless: str | None = None

    @property
    def name(self) -> str:
        """The command's name."""
        words = self.command[:2] if self.command[0] in {"XINFO", "XGROUP"} else self.command[:1]
        return " ".join(map(str, words))


@dataclass(frozen=True, slots=True)
class RedisReport:
    """The result of a check; all texts are clauses about the Redis."""

    where: str  # Its address, without credentials.
    version: str | None = None  # Such as `redis 7.0.15`; None if it is not known.
    unreachable: str | None = None  # Why it does not answer; None if it does.
    unfit: Mapping[RedisRole, Sequence[str]] | None = None  # By role: the lasting faults.
    failing: Sequence[str] = ()  # The faults that may pass.
    risks: Sequence[str] = ()  # What puts events at a risk.
    unreadable: Sequence[str] = ()  # The settings that its user may not read.
    mark: OwnerMark | None = None  # The owner of the namespace; None if it is unmarked.

    @property
    def warnings(self) -> list[str]:
        """The faults and risks of a Redis that is used nevertheless, for an operator."""
        down = self.unreachable
        waiting = (
            [] if down is None else [f"{down}; events wait in the write-ahead logs of the replicas until it answers"]
        )
        hidden = [f"its user may not look at {' and '.join(self.unreadable)}"] if self.unreadable else []
        return [*waiting, *self.failing, *self.risks, *hidden]

    def unfit_for(self, *roles: RedisRole) -> list[str]:
        """Return what makes it unfit for some roles, without repetition."""
        unfit = self.unfit or {}
        return list(dict.fromkeys(clause for role in roles for clause in unfit.get(role, ())))


def command_checks(keys: KeyNames) -> list[CommandCheck]:
    """Return a check for every command that the service sends."""
    events, watermark = keys.events(_NO_PRODUCER), keys.watermark(_NO_PRODUCER)
    replica, consumer = RedisRole.REPLICA, RedisRole.CONSUMER
    return [
        CommandCheck(replica, ("GET", keys.owner)),
        CommandCheck(replica, ("ZADD", keys.producers, "XX", 0, _NO_PRODUCER)),
        CommandCheck(replica, ("XINFO", "STREAM", events), "no such key"),
        CommandCheck(replica, ("HMGET", watermark, "epoch", "seq")),
        CommandCheck(replica, ("XADD", events, "NOMKSTREAM", "1-1", "first_seq", "1")),
        CommandCheck(replica, ("XINFO", "STREAM", keys.live), "no such key"),
        CommandCheck(replica, ("XREAD", "COUNT", 1, "STREAMS", keys.live, "18446744073709551615-18446744073709551615")),
        # Both conditions at once are a syntax error, which Redis finds last.
        CommandCheck(consumer, ("SET", keys.owner, "", "NX", "XX", "GET"), "syntax error"),
        CommandCheck(consumer, ("ZRANGE", keys.producers, 0, 0)),
        CommandCheck(consumer, ("XGROUP", "CREATE", events, GROUP, "0"), "requires the key to exist"),
        CommandCheck(consumer, ("XREADGROUP", "GROUP", GROUP, GROUP, "COUNT", 1, "STREAMS", events, ">"), "NOGROUP"),
        CommandCheck(consumer, ("XACK", events, GROUP, "1-1")),
        # The command itself refuses an odd number of fields and values.
        CommandCheck(consumer, ("HSET", watermark, "epoch", "1", "seq"), "wrong number of arguments"),
        CommandCheck(consumer, ("XTRIM", events, "MINID", "=", "1-1")),
        CommandCheck(consumer, ("XRANGE", events, "-", "+", "COUNT", 1)),
        CommandCheck(consumer, ("UNLINK", events)),
        # No entry may have this id.
        CommandCheck(
            consumer, ("XADD", keys.live, "NOMKSTREAM", "MINID", "=", "0-0", "0-0", "data", ""), "greater than 0-0"
        ),
    ]


async def check_redis(url: str, namespace: str, *, timeout_s: float = 2.0) -> RedisReport:
    """Connect as the service does, try all its commands and report, also on a Redis that cannot be used.

    Raises:
        StreamError: The address or the namespace is invalid.
    """
    connection = RedisLink(url, timeout_s=timeout_s)
    tried = command_checks(KeyNames(namespace))
    try:
        await connection.open()
        hello, *replies = await connection.exchange(
            [
                ("HELLO",),
                *_LOOKS,
                *(check.command for check in tried),
            ]
        )
        layout = (await connection.exchange([_LAYOUT]))[0] if connection.is_cluster else None
        masters = await _look_at(connection, _masters(layout))
    except RedisUnfitError as error:
        return RedisReport(connection.address, unfit={role: [error.reason] for role in RedisRole})
    except StreamError as error:
        return RedisReport(connection.address, unreachable=str(error).removesuffix("."))
    finally:
        await connection.close()
    n_looks = len(_LOOKS)
    seen = masters or {connection.address: replies[:n_looks]}
    return assess(connection.address, hello, seen, list(zip(tried, replies[n_looks:], strict=True)), layout)


async def _look_at(link: RedisLink, nodes: Sequence[RedisNode]) -> dict[str, Sequence[Any]]:
    """Return the replies of each node to `_LOOKS`, by its address.

    Raises:
        StreamError: A node does not answer.
    """
    found: dict[str, Sequence[Any]] = {}
    for node in nodes:
        connection = link.to(node)
        try:
            await connection.open()
            found[str(node)] = await connection.exchange(_LOOKS)
        finally:
            await connection.close()
    return found


def _masters(layout: Any) -> list[RedisNode]:
    """Return the masters of a reply to CLUSTER SLOTS; none if it was refused."""
    if not isinstance(layout, list):
        return []
    nodes = [RedisNode(host.decode(), port) for _, _, (host, port, *_), *_ in layout if host]
    return list(dict.fromkeys(nodes))


def assess(
    where: str,
    hello: Any,
    settings: Mapping[str, Sequence[Any]],
    tried: Sequence[tuple[CommandCheck, Any]],
    layout: Any = None,
) -> RedisReport:
    """Judge a Redis by its replies to HELLO, to `_LOOKS` by address, to probes and, of a cluster, to CLUSTER SLOTS."""
    server = {} if isinstance(hello, Refusal) else dict(zip(hello[::2], hello[1::2], strict=True))
    version = server.get(b"version", b"").decode()
    faults = _kind_faults(server.get(b"mode", b""), version)
    unfit: dict[RedisRole, list[str]] = {role: list(faults) for role in RedisRole}
    failing: dict[str, None] = {}
    denied: dict[RedisRole, list[str]] = {role: [] for role in RedisRole}
    # A Redis of the wrong kind also refuses commands for that reason; its kind is the only fault to report.
    for check, reply in () if faults else tried:
        if not isinstance(reply, Refusal) or (check.harmless is not None and check.harmless in reply.text):
            continue
        clause, lasting = refusal_meaning(reply.text)
        if reply.text.startswith("NOPERM"):
            denied[check.role].append(check.name)
        elif lasting:
            for role in RedisRole if check.role is RedisRole.REPLICA else (RedisRole.CONSUMER,):
                unfit[role].append(clause)
        else:
            failing[clause] = None
    denied[RedisRole.CONSUMER] = denied[RedisRole.REPLICA] + denied[RedisRole.CONSUMER]
    for role, names in denied.items():
        if names:
            unfit[role].append(
                f"its user may not send {', '.join(dict.fromkeys(names))} for the keys of a {role.value}"
            )
    risks: dict[str, None] = {}
    unreadable: dict[str, None] = {}
    for node, looks in settings.items():
        policy = _setting(looks[0], looks[2], "maxmemory_policy")
        append = _setting(looks[1], looks[3], "aof_enabled")
        unreadable |= {
            name: None for name, value in (("maxmemory-policy", policy), ("appendonly", append)) if value is None
        }
        at = f" at {node}" if len(settings) > 1 else ""
        if policy is not None and policy.startswith("allkeys"):
            for clauses in unfit.values():
                clauses.append(
                    f"its maxmemory-policy {policy}{at} evicts events that are not archived; noeviction is needed"
                )
        elif policy is not None and policy != "noeviction":
            risks[f"its maxmemory-policy{at} is {policy}, which evicts none of its keys; noeviction is clearer"] = None
        if append in {"no", "0"}:
            risks[f"appendonly is off{at}, so a restart loses what replicas then have to send again"] = None
    if isinstance(layout, Refusal):
        unreadable["the nodes of its Redis Cluster"] = None
    elif layout is not None:
        risks |= dict.fromkeys(_layout_risks(layout))
    mark = next((reply for check, reply in tried if check.name == "GET" and isinstance(reply, bytes)), None)
    return RedisReport(
        where,
        f"{server.get(b'server', b'redis').decode()} {version}" if version else None,
        unfit=unfit,
        failing=list(failing),
        risks=list(risks),
        unreadable=list(unreadable),
        mark=None if mark is None else OwnerMark.parse(mark.decode("utf-8", "replace")),
    )


def _layout_risks(layout: Sequence[Any]) -> list[str]:
    """Return what the reply to CLUSTER SLOTS shows of slots without a node and of nodes without a replica."""
    covered = sum(last - first + 1 for first, last, *_ in layout)
    risks = [] if covered == N_SLOTS else [f"{N_SLOTS - covered} of the {N_SLOTS} slots of its cluster have no node"]
    lonely = {f"{master[0].decode()}:{master[1]}": None for _, _, master, *replicas in layout if not replicas}
    if lonely:
        risks.append(
            f"no replica of {', '.join(lonely)} is ready, so its part of the cluster is away while that node is"
        )
    return risks


def _kind_faults(mode: bytes, version: str) -> list[str]:
    if mode == b"sentinel":
        return ["it is a Redis Sentinel, which is not supported; name the Redis that it watches"]
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if numbers and numbers < FLOOR:
        return [f"its version is {version}, {'.'.join(map(str, FLOOR))} or newer is needed"]
    return []


def _setting(config: Any, info: Any, name: str) -> str | None:
    """Return a setting from CONFIG GET, or from INFO where that is denied; None if both are."""
    if isinstance(config, list) and len(config) == 2:
        return str(config[1].decode())
    if isinstance(info, bytes):
        for line in info.decode("utf-8", "replace").splitlines():
            if line.startswith(f"{name}:"):
                return line.partition(":")[2]
    return None
