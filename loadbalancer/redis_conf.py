"""The configuration of the installation's own Redis, as a value."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadbalancer.errors import BadSetting

if TYPE_CHECKING:
    from pathlib import Path


def render(directory: Path, port: int) -> str:
    """Return redis.conf.

    It keeps everything in an append-only file, synced every second, and refuses writes rather than forget when memory
    is short: what a stream holds is not yet archived.

    Args:
        directory: where the append-only file lives.
        port: where it listens, on 127.0.0.1 only.

    Raises:
        BadSetting: the directory has a character that Redis cannot be told.
    """
    text = str(directory)
    if any(ord(character) < 32 for character in text):
        raise BadSetting(f"Redis cannot be given a path with a control character: {text!r}")
    quoted = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"""\
# Rendered by Recollect; edits are lost.
bind 127.0.0.1
protected-mode yes
port {port}
daemonize no
dir {quoted}
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
"""
