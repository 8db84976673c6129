"""The slots of a Redis Cluster: where a command belongs, and where a node of the cluster sends it.

Invariant: pure. A command has one key, or several of one slot; a command without a key may go to any node.

Source: Redis cluster specification (https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/), key
distribution model, hash tags, and redirection.
"""

from binascii import crc_hqx
from collections.abc import Sequence
from typing import Final, NamedTuple

N_SLOTS: Final = 16384
# The key is behind the subcommand.
_SUBCOMMANDS: Final = frozenset({"XINFO", "XGROUP"})
_READS: Final = frozenset({"XREAD", "XREADGROUP"})
_KEYLESS: Final = frozenset({"HELLO", "CONFIG", "INFO", "CLUSTER", "PING", "ASKING"})


class RedisNode(NamedTuple):
    """The address of a node."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Redirection(NamedTuple):
    """Where a node sends a command.

    Attributes:
        slot: The slot of its key.
        node: The node that has the slot; its host is empty if it is the answering node's.
        once: Whether only this command is to go there, since the slot is being moved (ASK), or all of its slot (MOVED).
    """

    slot: int
    node: RedisNode
    once: bool


def slot_of_key(key: str | bytes) -> int:
    """Return the slot of a key: CRC16 (XMODEM) of its hash tag, or of all of it, modulo 16384."""
    text = key.encode() if isinstance(key, str) else key
    start = text.find(b"{")
    if start >= 0:
        end = text.find(b"}", start + 1)
        # An empty tag is none.
        if end > start + 1:
            text = text[start + 1 : end]
    return crc_hqx(text, 0) % N_SLOTS


def slot_of_command(command: Sequence[str | bytes | float]) -> int | None:
    """Return the slot of a command's first key; None if it has no key."""
    name = command[0]
    if name in _KEYLESS:
        return None
    place = list(command).index("STREAMS") + 1 if name in _READS else 2 if name in _SUBCOMMANDS else 1
    key = command[place]
    return slot_of_key(key if isinstance(key, str | bytes) else str(key))


def redirection(error: str) -> Redirection | None:
    """Return what an error reply redirects to; None if it is another error.

    Such as `MOVED 3999 127.0.0.1:6381`, `ASK 3999 [2001:db8::1]:6381` or, with the host of the answering node,
    `MOVED 3999 :6381`.
    """
    words = error.split()
    if len(words) != 3 or words[0] not in {"MOVED", "ASK"} or not words[1].isdecimal():
        return None
    host, _, port = words[2].rpartition(":")
    if not port.isdecimal():
        return None
    return Redirection(int(words[1]), RedisNode(host.strip("[]"), int(port)), once=words[0] == "ASK")
