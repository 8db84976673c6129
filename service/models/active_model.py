"""What commands ask of the model store, which must end even where it hangs: above all the active model.

Invariant: it takes no longer than the caller allows; a thread that does not come back is left to itself.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from service.errors import ModelMissing, ModelRefused
from service.models import artefact
from service.models.snapshot import ModelSnapshot
from telemetry.daemon_thread import run_in_daemon_thread

T = TypeVar("T")


def load_active(models_dir: Path, timeout_s: float) -> ModelSnapshot:
    """Load what ACTIVE names; call it where no event loop runs.

    Args:
        models_dir: Where models are published.
        timeout_s: How long it may take.

    Raises:
        ModelMissing: Nothing is active, or the version is gone.
        ModelRefused: It cannot be served, or was not read in time.
    """

    def load() -> ModelSnapshot:
        version = artefact.active_version(models_dir)
        if version is None:
            raise ModelMissing(f"nothing is active in {models_dir}")
        return artefact.load(models_dir / version)

    return in_time(load, models_dir, timeout_s)


def in_time(work: Callable[[], T], models_dir: Path, timeout_s: float) -> T:
    """Do something with the model store, and give it up if the store hangs; call it where no event loop runs.

    Args:
        work: What to do; it runs in a thread of its own.
        models_dir: Where models are published, for the message.
        timeout_s: How long it may take.

    Raises:
        ModelRefused: It took longer.
    """

    async def within() -> T:
        try:
            return await asyncio.wait_for(run_in_daemon_thread(work, "model-loader"), timeout_s)
        except TimeoutError:
            raise ModelRefused(f"the active model in {models_dir} was not read within {timeout_s:g} s") from None

    return asyncio.run(within())
