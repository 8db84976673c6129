"""The meaning of Redis' error replies for an operator.

Codes are those of Redis 7 and 8 (https://redis.io/docs/latest/develop/reference/protocol-spec/, simple errors).
"""

from typing import Final, NamedTuple


class RefusalMeaning(NamedTuple):
    """A clause about the Redis, and whether the refusal lasts until the configuration changes."""

    clause: str
    lasting: bool


_MEANINGS: Final = {
    "CLUSTERDOWN": RefusalMeaning("a part of its Redis Cluster is down", lasting=False),
    "TRYAGAIN": RefusalMeaning("a part of its Redis Cluster is being moved", lasting=False),
    "NOAUTH": RefusalMeaning("it asks for a password, and its address has none", lasting=True),
    "OOM": RefusalMeaning("it is full: its maxmemory is reached", lasting=False),
    "READONLY": RefusalMeaning("it is a read-only replica of another Redis", lasting=False),
    "MISCONF": RefusalMeaning("it cannot save to its disk and refuses writes", lasting=False),
    "NOREPLICAS": RefusalMeaning("it has too few replicas and refuses writes", lasting=False),
    "MASTERDOWN": RefusalMeaning("it is a replica that has lost its master", lasting=False),
}


def refusal_meaning(text: str) -> RefusalMeaning:
    """Return the meaning of an error reply, which begins with its code; of an unknown code, the text itself."""
    known = _MEANINGS.get(text.partition(" ")[0])
    if known is not None:
        return known
    if "unknown command" in text or "unknown subcommand" in text:
        return RefusalMeaning(f"it does not know a command that is needed: {text}", lasting=True)
    return RefusalMeaning(text, lasting=text.startswith("NOPERM"))
