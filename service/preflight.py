"""The checks of Redis before a command starts anything.

Invariant: data of other installations is not changed. The only write is the owner mark of this installation's archive,
if there is no mark, so that one of two concurrent starts is refused, or in place of another mark with `claim`.
"""

import asyncio
import contextlib

from service.config import Config
from service.errors import RunError
from service.redis_access import redis_stream
from telemetry.catalogue.archive_identity import identify, is_copy, known_identity
from telemetry.errors import ArchiveError, StreamError
from telemetry.stream.namespace_owner import OwnerMark, ShipDecision, decide_shipping, foreign_redis_error
from telemetry.stream.redis_check import RedisReport, RedisRole, check_redis
from telemetry.stream.watermark_seal import Seal
from telemetry.wal.slot_identity import archive_of_slot


def require_redis(config: Config, *roles: RedisRole, claim: bool = False) -> RedisReport:
    """Refuse a Redis that cannot carry telemetry, or belongs to another archive.

    A Redis that does not answer, or is full, is accepted: events wait in the replicas' write-ahead logs. The consumer's
    role creates the archive if it is missing; `claim` takes over the namespace from another archive.

    Raises:
        UsageError: The URL is malformed.
        RunError: Redis is refused.
        TelemetryError: The namespace belongs to another archive, or the archive cannot be used.
    """
    where = redis_stream(config, Seal()).where
    found = asyncio.run(check_redis(config.stream_url, config.redis_namespace))
    if faults := found.unfit_for(*roles):
        raise RunError(f"RECOLLECT_REDIS_URL names {found.where}, which cannot carry telemetry: {'; '.join(faults)}.")
    if RedisRole.CONSUMER in roles:
        if not claim and is_copy(config.archive_dir):
            raise RunError(
                f"{config.archive_dir} is a copy of an archive in another folder. If the other one is no longer in"
                " use, continue in its place with --claim; else give this one another RECOLLECT_REDIS_NAMESPACE or"
                " Redis, and an identity of its own with --claim."
            )
        own = identify(config.archive_dir, claim=claim)
        mark = asyncio.run(_mark(config, own, claim=claim)) if found.unreachable is None else None
        if mark is not None and mark.archive != own.archive:
            raise foreign_redis_error(where, mark, own.archive)
    return found


def require_namespace(config: Config, found: RedisReport, archive: str | None) -> None:
    """Refuse a namespace to which a replica must not ship the events of this archive; None for an unknown archive.

    Raises:
        TelemetryError: The namespace belongs to another archive.
    """
    if archive is not None and found.mark is not None and decide_shipping(archive, found.mark) is ShipDecision.REFUSE:
        raise foreign_redis_error(redis_stream(config, Seal()).where, found.mark, archive)


def require_namespace_of_slots(config: Config, found: RedisReport, replicas: int) -> None:
    """Apply `require_namespace` to the slots of the replicas."""
    default = installed_archive(config)
    for slot in range(replicas):
        require_namespace(config, found, archive_of_slot(config.spool_dir / str(slot)) or default)


def installed_archive(config: Config) -> str | None:
    """Return the identity of the archive in this home; None if there is none, or it cannot be read."""
    with contextlib.suppress(ArchiveError):
        known = known_identity(config.archive_dir)
        return None if known is None else known.archive
    return None


def claim_namespace(config: Config) -> None:
    """Replace the owner mark of another archive by this installation's; its producers then ship to this archive.

    Raises:
        TelemetryError: Redis does not answer or refuses, or the archive cannot be used.
    """
    asyncio.run(_mark(config, identify(config.archive_dir, claim=True), claim=True))


async def _mark(config: Config, own: OwnerMark, *, claim: bool) -> OwnerMark | None:
    """Write the mark where there is none, or replace another with `claim`; return the mark in force."""
    stream = redis_stream(config, Seal())
    try:
        await stream.connect()
        mark = await stream.read_mark()
        if mark is None:
            # A Redis that cannot be written now does not prevent the start.
            with contextlib.suppress(StreamError):
                mark = await stream.mark_if_unmarked(own)
        if claim and mark is not None and mark.archive != own.archive:
            # The catalogue first: a mark lost by Redis is restored from it.
            mark = identify(config.archive_dir, in_place_of=mark)
            await stream.replace_mark(mark)
        return mark
    finally:
        await stream.close()
