"""The names of all keys in Redis; each begins with the installation's namespace.

Invariant: two namespaces have no key in common, so one Redis can serve two installations.
"""

import re
from typing import Final

from telemetry.errors import StreamError

DEFAULT_NAMESPACE: Final = "recollect"
# No wildcard of an ACL pattern, no brace of a hash tag, no space of a command line.
_NAMESPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class KeyNames:
    """The keys of one installation.

    Attributes:
        producers: The sorted set of producers.
        owner: The mark of the archive that owns the namespace.
        live: The feed of live state.

    Raises:
        StreamError: The namespace has a character with a meaning in Redis.
    """

    def __init__(self, namespace: str = DEFAULT_NAMESPACE) -> None:
        if _NAMESPACE.fullmatch(namespace) is None:
            raise StreamError(
                f"The Redis namespace {namespace!r} is invalid. It has 1 to 64 letters, digits, '.', '_' or '-', "
                "the first a letter or digit."
            )
        self.namespace = namespace
        self.producers = f"{namespace}:producers"
        self.owner = f"{namespace}:owner"
        self.live = f"{namespace}:live"

    def events(self, producer: str) -> str:
        """Return the key of a producer's stream."""
        return f"{self.namespace}:events:{{{producer}}}"

    def watermark(self, producer: str) -> str:
        """Return the key of the hash with a producer's watermark."""
        return f"{self.namespace}:watermark:{{{producer}}}"
