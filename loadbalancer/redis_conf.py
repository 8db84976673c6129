"""The configuration of the installation's own Redis, as a value."""

from pathlib import Path
from urllib.parse import quote

from loadbalancer.errors import BadSetting


def render(directory: Path, socket: Path) -> str:
    """Return redis.conf.

    It listens on a socket of the file system alone, whose directory decides who may connect. It keeps everything in an
    append-only file, synced every second, and refuses writes rather than forget when memory is short: what a stream
    holds is not yet archived.

    Args:
        directory: Where the append-only file lives.
        socket: Where it listens.

    Raises:
        BadSetting: A path has a character that Redis cannot be told.
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
    """Return the address of a Redis that listens on a socket, as RECOLLECT_REDIS_URL has it."""
    return f"unix://{quote(str(socket))}?db=0"


def _quoted(path: Path) -> str:
    text = str(path)
    if any(ord(character) < 32 for character in text):
        raise BadSetting(f"Redis cannot be given a path with a control character: {text!r}")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
