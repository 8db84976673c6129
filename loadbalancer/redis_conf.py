"""The configuration of the installation's own Redis, as a value."""

from pathlib import Path
from urllib.parse import quote

from loadbalancer.errors import BadSetting


def render(directory: Path, socket: Path) -> str:
    """Return redis.conf.

    Redis listens on a Unix socket alone, and the mode of its directory limits connections to this user. It keeps all
    data in an append-only file in `directory`, synced every second. When memory is short it refuses writes and evicts
    nothing, because stream entries may not be archived yet.

    Raises:
        BadSetting: A path has a control character, which the format cannot express.
    """
    return f"""\
# Rendered by Recollect; edits are lost.
port 0
unixsocket {_quoted(socket)}
unixsocketperm 600
daemonize no
dir {_quoted(directory)}
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
"""


def url(socket: Path) -> str:
    """Return the RECOLLECT_REDIS_URL of a Redis that listens on a socket."""
    return f"unix://{quote(str(socket))}?db=0"


def _quoted(path: Path) -> str:
    text = str(path)
    if any(ord(character) < 32 for character in text):
        raise BadSetting(f"redis.conf cannot hold a path with a control character: {text!r}.")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
