"""What an error reply of Redis means to an operator, in a sentence.

Codes are those of Redis 7 and 8 (https://redis.io/docs/latest/develop/reference/protocol-spec/, simple errors).
"""

from typing import Final, NamedTuple

CLUSTER: Final = "it is a node of a Redis Cluster, which is not supported; name a single Redis"


class Meaning(NamedTuple):
    """What a refusal means; lasting, if it stays until the configuration changes."""

    sentence: str
    lasting: bool


_MEANINGS: Final = {
    "MOVED": Meaning(CLUSTER, lasting=True),
    "ASK": Meaning(CLUSTER, lasting=True),
    "CROSSSLOT": Meaning(CLUSTER, lasting=True),
    "CLUSTERDOWN": Meaning(CLUSTER, lasting=True),
    "NOAUTH": Meaning("it asks for a password, and its address has none", lasting=True),
    "OOM": Meaning("it is full: its maxmemory is reached", lasting=False),
    "READONLY": Meaning("it is a read-only replica of another Redis", lasting=False),
    "MISCONF": Meaning("it cannot save to its disk and refuses writes", lasting=False),
    "NOREPLICAS": Meaning("it has too few replicas and refuses writes", lasting=False),
    "MASTERDOWN": Meaning("it is a replica that has lost its master", lasting=False),
}


def meaning(text: str) -> Meaning:
    """Say what an error reply means.

    Args:
        text: The reply, its code first.

    Returns:
        The meaning; for a code that is not known here, the text itself.
    """
    known = _MEANINGS.get(text.partition(" ")[0])
    if known is not None:
        return known
    if "unknown command" in text or "unknown subcommand" in text:
        return Meaning(f"it does not know a command that is needed: {text}", lasting=True)
    return Meaning(text, lasting=text.startswith("NOPERM"))
