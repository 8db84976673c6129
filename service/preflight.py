"""What a command asks of Redis before it starts anything, so that what cannot work is refused at once.

Invariant: nothing of another installation is touched. The one thing that is ever written is our archive's mark: where
there is none, so that of two who start at once one is refused, and in the place of another on purpose (`claim`).
"""

import asyncio
import contextlib

from service.config import Config
from service.errors import RunError
from service.redis_access import stream_of
from telemetry.catalogue.archive_identity import identify, is_copy, known_identity
from telemetry.errors import ArchiveError, StreamError
from telemetry.stream.namespace_owner import OwnerMark, ShipDecision, decide_shipping, foreign_redis_error
from telemetry.stream.redis_check import RedisReport, RedisRole, check_redis
from telemetry.stream.watermark_seal import Seal
from telemetry.wal.slot import archive_of_slot


def require_redis(config: Config, *sides: RedisRole, claim: bool = False) -> RedisReport:
    """Refuse a Redis that cannot carry our telemetry, or carries another archive's.

    One that does not answer, or is full, is not refused: events wait in the replicas' logs.

    Args:
        config: Every setting.
        sides: What the command runs; with the consumer's side the archive is made if it is not there.
        claim: Take the place over if it belongs to another archive.

    Returns:
        What was found.

    Raises:
        UsageError: The address is none.
        RunError: It is refused; says why.
        TelemetryError: It is another archive's, or the archive cannot be used.
    """
    place = stream_of(config, Seal()).where
    found = asyncio.run(check_redis(config.stream_url, config.redis_namespace))
    if faults := found.unfit_for(*sides):
        raise RunError(f"RECOLLECT_REDIS_URL names {found.where}, which cannot carry telemetry: {'; '.join(faults)}")
    if RedisRole.CONSUMER in sides:
        if not claim and is_copy(config.archive_dir):
            raise RunError(
                f"{config.archive_dir} is a copy of an archive in another folder: if that one is not in use any more, "
                "go on in its place with --claim; else give this one another RECOLLECT_REDIS_NAMESPACE or Redis, and "
                "an identity of its own with --claim"
            )
        ours = identify(config.archive_dir, claim=claim)
        there = asyncio.run(_mark(config, ours, claim=claim)) if found.unreachable is None else None
        if there is not None and there.archive != ours.archive:
            raise foreign_redis_error(place, there, ours.archive)
    return found


def require_place(config: Config, found: RedisReport, archive: str | None) -> None:
    """Refuse a place in Redis to which a replica's events must not go.

    Args:
        config: Every setting.
        found: What was found there.
        archive: The archive that the events go to; None if that is not known yet.

    Raises:
        TelemetryError: It belongs to another archive.
    """
    if archive is not None and found.mark is not None and decide_shipping(archive, found.mark) is ShipDecision.REFUSE:
        raise foreign_redis_error(stream_of(config, Seal()).where, found.mark, archive)


def require_slots(config: Config, found: RedisReport, replicas: int) -> None:
    """Refuse a place in Redis to which the events of the first slots must not go; see `require_place`."""
    here = installed_archive(config)
    for slot in range(replicas):
        require_place(config, found, archive_of_slot(config.spool_dir / str(slot)) or here)


def installed_archive(config: Config) -> str | None:
    """Return the identity of the archive in this home; None if there is none, or it cannot be read."""
    with contextlib.suppress(ArchiveError):
        known = known_identity(config.archive_dir)
        return None if known is None else known.archive
    return None


def claim_place(config: Config) -> None:
    """Put our archive's mark in the place of another; its producers follow.

    Raises:
        TelemetryError: Redis does not answer or refuses, or the archive cannot be used.
    """
    asyncio.run(_mark(config, identify(config.archive_dir, claim=True), claim=True))


async def _mark(config: Config, ours: OwnerMark, *, claim: bool) -> OwnerMark | None:
    """Leave our mark where there is none, or take the place over; returns the mark that is there then."""
    stream = stream_of(config, Seal())
    try:
        await stream.connect()
        there = await stream.read_mark()
        if there is None:
            # A Redis that cannot be written to now is no reason not to start.
            with contextlib.suppress(StreamError):
                there = await stream.mark_if_unmarked(ours)
        if claim and there is not None and there.archive != ours.archive:
            # In the catalogue first: a mark that Redis loses is written again from there.
            there = identify(config.archive_dir, in_place_of=there)
            await stream.replace_mark(there)
        return there
    finally:
        await stream.close()
