"""Rewrites a sealed file without some users' lines.

Invariants: the new file is written beside the old one, synced, and counts only once the catalogue has it; until then a
crash leaves a file that the next lease holder removes. Its name holds the lease and is used once, so a holder that lost
its lease writes to no file of its successor. Every other line is copied unchanged, in its order.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import orjson

from telemetry.archive.archive_files import DEAD_LETTERS, REWRITTEN, committed_lines
from telemetry.archive.dead_letters import decode_letter
from telemetry.archive.parquet_file import SUFFIX, contains_any, write_lines
from telemetry.catalogue.commit import FileLength, runs_of
from telemetry.erasure.erasure_requests import Replacement
from telemetry.erasure.line_matcher import LineMatcher
from telemetry.errors import ArchiveError
from telemetry.wal.disk import sync_directory

_CHUNK_BYTES: Final = 1024 * 1024
_WRITE_BYTES: Final = 256 * 1024
_NAME: Final = re.compile(rf"(?:{re.escape(REWRITTEN)}\d+-(\d+))?(\.[a-z]+)$")


@dataclass(slots=True)
class _LeftOut:
    """The (producer, epoch, seq, received_at) of the lines left out, and their number by erase_id."""

    events: list[tuple[str, int, int, str | None]] = field(default_factory=list)
    erased: Counter[str] = field(default_factory=Counter)


def rewrite(root: Path, lease_epoch: int, path: str, length: FileLength, matcher: LineMatcher) -> Replacement | None:
    """Write a copy of a sealed file without some users' lines.

    Returns:
        The files to exchange, or None if no line matches.
    """
    dead_letters = path.startswith(f"{DEAD_LETTERS}/")
    left_out = _LeftOut()
    try:
        # Searched first, so that nothing is written if no line matches.
        if not contains_users(root, path, length, matcher):
            return None
        kept_lines = _kept_letters if dead_letters else _kept_events
        kept = kept_lines(committed_lines(root / path, length.size_bytes), matcher, left_out)
        new_path = _next_name(path, lease_epoch)
        new = _write(root / new_path, kept)
    except OSError as error:
        raise ArchiveError(f"{root / path} cannot be rewritten: {error.strerror}.") from None
    if not left_out.erased:
        (root / new_path).unlink()
        return None
    removed = runs_of(left_out.events, "erased")
    return Replacement((path, length), (new_path, new), removed, dead_letters, dict(left_out.erased))


def contains_users(root: Path, path: str, length: FileLength, matcher: LineMatcher) -> bool:
    """Decide whether a file has a line to erase."""
    full = root / path
    try:
        if path.endswith(SUFFIX):
            return contains_any(full, matcher.requested)
        if path.startswith(f"{DEAD_LETTERS}/"):
            # Their lines are inside a string or in base64, and letters are few, so each one is decoded.
            return any(matcher.match_letter(line) is not None for line in committed_lines(full, length.size_bytes))
        return any(
            matcher.may_match(block) and any(matcher.match(line) is not None for line in block.splitlines())
            for block in _blocks(full, length.size_bytes)
        )
    except OSError as error:
        raise ArchiveError(f"{full} cannot be read: {error.strerror}.") from None


def _kept_events(lines: Iterable[bytes], matcher: LineMatcher, left_out: _LeftOut) -> Iterator[bytes]:
    for line in lines:
        request = matcher.match(line)
        if request is None:
            yield line
            continue
        fields = orjson.loads(line)
        left_out.erased[request.erase_id] += 1
        left_out.events.append((fields["producer"], fields["epoch"], fields["seq"], fields["received_at"]))


def _kept_letters(lines: Iterable[bytes], matcher: LineMatcher, left_out: _LeftOut) -> Iterator[bytes]:
    for line in lines:
        request = matcher.match_letter(line)
        if request is None:
            yield line
            continue
        left_out.erased[request.erase_id] += 1
        try:
            letter = decode_letter(line)
        except ArchiveError:
            # A damaged letter accounts for no sequence number.
            continue
        epoch, seqs = letter.seqs
        left_out.events.extend((letter.producer, epoch, seq, None) for seq in seqs)


def _blocks(path: Path, size_bytes: int) -> Iterator[bytes]:
    """Read whole lines, many at once."""
    with path.open("rb", buffering=0) as file:
        tail = b""
        while size_bytes > 0 and (chunk := file.read(min(_CHUNK_BYTES, size_bytes))):
            size_bytes -= len(chunk)
            lines, end, rest = chunk.rpartition(b"\n")
            if end:
                yield tail + lines + end
                tail = rest
            else:
                tail += rest
        if tail:
            yield tail


def _write(path: Path, lines: Iterator[bytes]) -> FileLength:
    if path.suffix == SUFFIX:
        count = write_lines(path, lines)
        size_bytes = path.stat().st_size
    else:
        count = 0
        # The remains of an earlier attempt do not count.
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "wb", buffering=_WRITE_BYTES) as file:
            for line in lines:
                file.write(line)
                count += 1
            file.flush()
            os.fsync(file.fileno())
            size_bytes = file.tell()
    sync_directory(path.parent)
    return FileLength(size_bytes, count)


def _next_name(path: str, lease_epoch: int) -> str:
    """Name the file that replaces another one; it sorts close to it."""
    match = _NAME.search(path)
    if match is None:
        raise ArchiveError(f"{path} is not the name of a file of an archive.")
    times = int(match[1] or 0) + 1
    return f"{path[: match.start()]}{REWRITTEN}{lease_epoch:08d}-{times}{match[2]}"
