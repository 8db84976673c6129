"""The check of a Redis: whether it can carry telemetry, for a replica and for the consumer.

Invariant: the check uses the service's own client, address, options and user, and changes nothing.
"""

import asyncio
from pathlib import Path

from ops.checks.finding import Finding
from service.config import Config
from service.preflight import installed_archive
from telemetry.secret_file import read_key
from telemetry.stream.key_names import KeyNames
from telemetry.stream.namespace_owner import ShipDecision, decide_shipping, foreign_redis_error
from telemetry.stream.redis_check import RedisRole, check_redis
from telemetry.stream.redis_link import RedisLink
from telemetry.stream.redis_stream import RedisStream
from telemetry.stream.watermark_seal import FIELDS, KEY_FILE, Seal
from telemetry.wal.slot_identity import IDENTITY_FILE, decode_identity


def redis_health(config: Config) -> Finding:
    """Check the configured Redis.

    Returns:
        `fail` if it cannot carry telemetry, `warn` if it can at a risk, or for replicas only.

    Raises:
        TelemetryError: The configured address is invalid.
    """
    found = asyncio.run(check_redis(config.stream_url, config.redis_namespace))
    where = f"The Redis at {found.where}" + (f", {found.version}," if found.version else "")
    if found.unreachable is not None:
        return "fail", f"{where} does not answer: {found.unreachable}."
    here = installed_archive(config)
    if found.mark is not None and here is not None and decide_shipping(here, found.mark) is ShipDecision.REFUSE:
        place = RedisStream(config.stream_url, config.redis_namespace).where
        return "fail", str(foreign_redis_error(place, found.mark, here))
    if faults := [*found.unfit_for(RedisRole.REPLICA), *found.failing]:
        return "fail", f"{where} cannot carry telemetry: {'; '.join(faults)}."
    if reason := asyncio.run(_watermark_fault(config)):
        return "fail", f"{where} has a watermark that this machine's replicas reject: {reason}."
    consumer_faults = found.unfit_for(RedisRole.CONSUMER)
    remarks = [f"replicas can use it, up and consume cannot: {'; '.join(consumer_faults)}"] if consumer_faults else []
    remarks += found.warnings
    summary = f"{where} accepts every command needed in the namespace {config.redis_namespace}"
    if consumer_faults or found.risks:
        return "warn", f"{where} answers, but {'; '.join(remarks)}."
    return "ok", f"{'; '.join([summary, *remarks])}."


async def _watermark_fault(config: Config) -> str | None:
    """Return why the seal of a local replica's watermark is invalid; None if all are valid or none exists."""
    path = config.watermark_key_file or config.archive_dir / KEY_FILE
    producers = _producers(config.spool_dir)
    if not producers or not path.exists():
        return None
    seal, keys = Seal(read_key(path, "watermark key")), KeyNames(config.redis_namespace)
    connection = RedisLink(config.stream_url)
    try:
        await connection.open()
        replies = await connection.exchange([("HMGET", keys.watermark(name), *FIELDS) for name in producers])
    finally:
        await connection.close()
    doubts = [
        seal.verify(name, *reply).doubt for name, reply in zip(producers, replies, strict=True) if type(reply) is list
    ]
    return next((doubt for doubt in doubts if doubt is not None), None)


def _producers(spool: Path) -> list[str]:
    identities = [decode_identity(path.read_bytes()) for path in sorted(spool.glob(f"*/{IDENTITY_FILE}"))]
    return [identity.producer for identity in identities if identity is not None]
