"""The connections to a Redis: one to a single server, one to each node that is needed of a Redis Cluster.

Invariants:

- After any `StreamError` nothing is sent on any of the connections, and none is made again by itself.
- A slot that moves to another node after this link used it is such an error. The new node may lack what the old one
  acknowledged, so the caller has to ask again what is there.
- The commands of one exchange that go to the same node keep their order, and those of one slot go to the same node.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from telemetry.errors import RedisUnfitError, StreamAwayError
from telemetry.stream.redis_connection import Command, RedisConnection, Refusal
from telemetry.stream.redis_slots import RedisNode, redirection, slot_of_command

# A command is sent to a new node, to a moved slot, and to one that is being moved.
_MOST_ATTEMPTS: Final = 5


class RedisLink:
    """A connection to a single Redis, or connections to the nodes of a Redis Cluster; one exchange at a time.

    Args:
        url: As in `RedisConnection`. With TCP, several hosts, comma separated, name nodes of one Redis Cluster.
        timeout_s: As in `RedisConnection`.

    Attributes:
        address: The configured addresses, without credentials.

    Raises:
        StreamError: An address is invalid.
    """

    def __init__(self, url: str, *, timeout_s: float = 2.0) -> None:
        self._seeds = [RedisConnection(one, timeout_s=timeout_s) for one in addresses(url)]
        self.address = ",".join(seed.address for seed in self._seeds)
        # The node that is asked first, and for slots that are not known.
        self._home = self._seeds[0]
        self._nodes: dict[RedisNode, RedisConnection] = {}
        # Nodes that this link was ever sent to: any of them can name the others while the configured ones are away.
        self._known: dict[RedisNode, None] = {}
        # The node of each slot that was used; None for the home node.
        self._slots: dict[int, RedisNode | None] = {}
        self._is_cluster = False
        # A home node that does not serve what it should; it is tried last.
        self._doubted: RedisConnection | None = None

    def __repr__(self) -> str:
        return f"<RedisLink {'open' if self.is_open else 'closed'}>"

    @property
    def is_open(self) -> bool:
        """Whether there is a connection."""
        return self._home.is_open

    @property
    def is_cluster(self) -> bool:
        """Whether the last server that was reached is a node of a Redis Cluster."""
        return self._is_cluster

    async def open(self) -> None:
        """Drop all connections, and connect to the first configured or known node that answers.

        Raises:
            StreamError: No connection can be made.
        """
        await self.close()
        first_error: StreamAwayError | None = None
        candidates = [*self._seeds, *(self.to(node) for node in self._known)]
        candidates.sort(key=lambda candidate: (candidate is self._doubted, candidate is not self._home))
        for candidate in candidates:
            try:
                await candidate.open()
                self._home = candidate
                await self._recognise()
            except StreamAwayError as error:
                first_error = first_error or error
                await candidate.close()
                continue
            self._doubted = None
            return
        raise first_error or StreamAwayError("There is no connection to Redis.")

    async def _recognise(self) -> None:
        """Find out whether the home node is one of a Redis Cluster."""
        (hello,) = await self._home.exchange([("HELLO",)])
        # A server without HELLO is older than 6.0, or a proxy.
        server = {} if isinstance(hello, Refusal) else dict(zip(hello[::2], hello[1::2], strict=True))
        self._is_cluster = server.get(b"mode") == b"cluster"
        if len(self._seeds) > 1 and not self._is_cluster:
            await self.close()
            raise RedisUnfitError(
                f"the Redis at {self._home.address} is no node of a Redis Cluster, and the address names several hosts"
            )

    async def close(self) -> None:
        """Drop all connections; never raises."""
        connections = [self._home, *self._nodes.values()]
        self._nodes.clear()
        self._slots.clear()
        for connection in connections:
            await connection.close()

    def to(self, node: RedisNode) -> RedisConnection:
        """Return a new, closed connection to a node, with the user and the options of the configured address."""
        return self._seeds[0].to(node.host, node.port)

    async def exchange(self, commands: Sequence[Command], *, extra_s: float = 0.0) -> list[Any]:
        """Send commands and return their replies in order, as `RedisConnection.exchange`.

        Raises:
            StreamAwayError: A connection is missing, broke or took too long, or a slot in use moved to another node.
            RedisUnfitError: A node asks for a login.
        """
        try:
            if not self._is_cluster:
                return await self._home.exchange(commands, extra_s=extra_s)
            return await self._exchange_with_cluster(commands, extra_s)
        except BaseException:
            await self.close()
            raise

    async def _exchange_with_cluster(self, commands: Sequence[Command], extra_s: float) -> list[Any]:
        replies: list[Any] = [None] * len(commands)
        slots = [slot_of_command(command) for command in commands]
        waiting: list[tuple[int, RedisNode | None, bool]]
        waiting = [(index, None if slot is None else self._slots.get(slot), False) for index, slot in enumerate(slots)]
        # Slots whose node was known before this exchange.
        settled = set(self._slots)
        for _ in range(_MOST_ATTEMPTS):
            redirected: list[tuple[int, RedisNode | None, bool]] = []
            for index, node, reply in await self._send(commands, waiting, extra_s):
                to = redirection(reply.text) if isinstance(reply, Refusal) else None
                if to is None:
                    replies[index] = reply
                    if isinstance(reply, Refusal) and reply.text.startswith("CLUSTERDOWN"):
                        self._doubted = self._home
                    if (slot := slots[index]) is not None:
                        self._slots.setdefault(slot, node)
                    continue
                if not to.once:
                    if to.slot in settled:
                        raise StreamAwayError(f"Slot {to.slot} of the Redis Cluster moved to another node.")
                    self._slots[to.slot] = self._absolute(to.node, node)
                redirected.append((index, self._absolute(to.node, node), to.once))
            if not redirected:
                return replies
            waiting = redirected
        raise StreamAwayError("The nodes of the Redis Cluster send a command round in circles.")

    async def _send(
        self, commands: Sequence[Command], waiting: Sequence[tuple[int, RedisNode | None, bool]], extra_s: float
    ) -> list[tuple[int, RedisNode | None, Any]]:
        """Send commands to their nodes, all nodes at once; return each one's number, node and reply."""
        by_node: dict[RedisNode | None, list[tuple[int, bool]]] = {}
        for index, node, asking in waiting:
            by_node.setdefault(node, []).append((index, asking))

        async def send(
            node: RedisNode | None, numbers: list[tuple[int, bool]]
        ) -> list[tuple[int, RedisNode | None, Any]]:
            connection = await self._connected(node)
            sent: list[Command] = []
            for index, asking in numbers:
                # It makes a node accept the next command for a slot that is being moved to it.
                sent += [("ASKING",), commands[index]] if asking else [commands[index]]
            answers = iter(await connection.exchange(sent, extra_s=extra_s))
            found = []
            for index, asking in numbers:
                if asking:
                    next(answers)
                found.append((index, node, next(answers)))
            return found

        if len(by_node) == 1:
            ((node, numbers),) = by_node.items()
            return await send(node, numbers)
        results = await asyncio.gather(*(send(*each) for each in by_node.items()), return_exceptions=True)
        answered = []
        for result in results:
            if isinstance(result, BaseException):
                raise result
            answered += result
        return answered

    async def _connected(self, node: RedisNode | None) -> RedisConnection:
        if node is None:
            return self._home
        connection = self._nodes.get(node)
        if connection is None:
            connection = self._nodes[node] = self.to(node)
            await connection.open()
            self._known[node] = None
        return connection

    def _absolute(self, node: RedisNode, answering: RedisNode | None) -> RedisNode:
        """Return a node with its host: that of the answering node where none is named."""
        if node.host:
            return node
        return RedisNode(self._home.host if answering is None else answering.host, node.port)


def addresses(url: str) -> list[str]:
    """Return one address for each host that an address names.

    `redis://user:password@a:6379,b:6379/0` names two nodes of a Redis Cluster.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        # RedisConnection refuses it in its own words.
        return [url]
    if parts.scheme not in {"redis", "rediss"}:
        return [url]
    login, at, hosts = parts.netloc.rpartition("@")
    return [urlunsplit(parts._replace(netloc=f"{login}{at}{host}")) for host in hosts.split(",")]
