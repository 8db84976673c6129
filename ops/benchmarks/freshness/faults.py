"""What happens to an installation while the stop-watch runs."""

import asyncio
import itertools
import signal
from collections.abc import Awaitable, Callable
from typing import Final

from ops.drill.system.drilled_system import CONSUMER, DrilledSystem
from ops.drill.system.recollect_commands import run_recollect
from service.errors import RunError
from service.models.files.active_model import version as active_version
from service.models.publication import publication

_RESTART_LIMIT_S: Final = 90.0
_SWAP_EVERY_S: Final = 3.0
_KILL_EVERY_S: Final = 8.0

Fault = Callable[[DrilledSystem], Awaitable[None]]


async def nothing(_system: DrilledSystem) -> None:
    """Let everything run."""


async def restart_replicas(system: DrilledSystem) -> None:
    """Restart every replica in turn, again and again, until cancelled."""
    while True:
        result = await run_recollect("balance", "restart", "--json", environ=system.environ, limit_s=_RESTART_LIMIT_S)
        if result.status != 0:
            raise RunError(f"The rolling restart failed: {result.stderr.decode(errors='replace').strip()[-200:]}")


async def swap_models(system: DrilledSystem) -> None:
    """Activate each published version in turn, every few seconds, until cancelled."""
    models = system.home / "models"
    versions = sorted(path.name for path in models.iterdir() if (path / "manifest.json").exists())
    if len(versions) < 2:
        raise RunError(f"{models} has {len(versions)} version, and a swap needs two.")
    active = active_version(models)
    for version in itertools.cycle(sorted(versions, key=lambda one: one == active)):
        await asyncio.to_thread(publication.activate, models, version)
        await asyncio.sleep(_SWAP_EVERY_S)


async def kill_consumer(system: DrilledSystem) -> None:
    """Kill the consumer every few seconds until cancelled; `up` restarts it."""
    while True:
        system.send_signal(CONSUMER, signal.SIGKILL)
        await asyncio.sleep(_KILL_EVERY_S)
