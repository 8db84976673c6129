"""What `recollect doctor` says of a Redis: whether it can carry telemetry, as a replica and as the consumer find it.

Invariant: it is asked through the service's own client, with its address, options and user, and nothing is changed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

from service.preflight import installed_archive
from telemetry.ownership import Leave, foreign, leave
from telemetry.rehearsal import Side, rehearse
from telemetry.stream import RedisStream

if TYPE_CHECKING:
    from service.config import Config


def redis_health(config: Config) -> tuple[Literal["ok", "warn", "fail"], str]:
    """Judge the configured Redis.

    Args:
        config: the settings of the installation.

    Returns:
        `fail` for one that cannot carry telemetry now, `warn` for one that can at a risk, or for replicas alone; and a
        sentence that says why, and what could not be looked at.

    Raises:
        TelemetryError: its address is none.
    """
    found = asyncio.run(rehearse(config.stream_url, config.redis_namespace))
    where = f"The Redis at {found.where}" + (f", {found.version}," if found.version else "")
    if found.away is not None:
        return "fail", f"{where} does not answer: {found.away}."
    here = installed_archive(config)
    if found.mark is not None and here is not None and leave(here, found.mark) is Leave.KEEP:
        place = RedisStream(config.stream_url, config.redis_namespace).where
        return "fail", f"T{str(foreign(place, found.mark, here))[1:]}."
    if faults := [*found.faults(Side.REPLICA), *found.failing]:
        return "fail", f"{where} cannot carry telemetry: {'; '.join(faults)}."
    alone = found.faults(Side.CONSUMER)
    doubts = [f"replicas alone can use it, up and consume cannot: {'; '.join(alone)}"] if alone else []
    doubts += found.troubles
    says = f"{where} takes every command that is needed in the namespace {config.redis_namespace}"
    if alone or found.doubts:
        return "warn", f"{where} answers, but {'; '.join(doubts)}."
    return "ok", f"{'; '.join([says, *doubts])}."
