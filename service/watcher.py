"""Follows `models/ACTIVE`: loads, checks and warms a newly activated model off the event loop, then swaps it in.

Invariant: the store only ever gets a model that passed every check and has answered requests of its own; a bad one
leaves the old one serving, is reported once, and is tried again only when ACTIVE is written again.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import structlog

from service.errors import ModelError, ModelRefused
from service.metrics import Metrics
from service.models import artefact, scoring
from service.models.snapshot import ModelSnapshot
from service.store import ModelStore

_log = structlog.get_logger("recollect.watcher")
_WARM_USERS = 32


class Watcher:
    """Keeps one store at the active version.

    Args:
        models_dir: where models are published.
        store: what to keep current.
        interval_s: seconds between two looks.
        metrics: told about every swap and refusal.
    """

    def __init__(self, models_dir: Path, store: ModelStore, interval_s: float, metrics: Metrics) -> None:
        self._models_dir = models_dir
        self._store = store
        self._interval_s = interval_s
        self._metrics = metrics
        # One thread of its own: the default pool is shared with everything else that blocks.
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="model-loader")
        self._seen: tuple[int, int] | None = None
        self.readable = True
        """False while the model store cannot be read; the last good model goes on serving."""

    async def run(self) -> None:
        """Follow ACTIVE until cancelled."""
        try:
            while True:
                await self.look()
                await asyncio.sleep(self._interval_s)
        finally:
            self._executor.shutdown(wait=False, cancel_futures=True)

    async def look(self) -> None:
        """Look once, and swap if another version was activated."""
        try:
            stat = (self._models_dir / artefact.ACTIVE).stat()
            self.readable = True
        except FileNotFoundError:
            # Nothing was ever activated, which is no fault until there is something to serve.
            self.readable = self._store.version is None
            return
        except OSError:
            self.readable = False
            return
        # Every activation renames a new file into place, so inode and time tell one from the next.
        seen = (stat.st_ino, stat.st_mtime_ns)
        if seen == self._seen:
            return
        try:
            snapshot = await asyncio.get_running_loop().run_in_executor(self._executor, self._load, self._store.version)
        except ModelError as error:
            self._metrics.model_refusals.inc()
            _log.error("model refused", reason=str(error), serving=self._store.version)
        else:
            if snapshot is not None:
                self._store.swap(snapshot)
                self._metrics.swapped(snapshot)
                _log.info("model swapped in", version=snapshot.version, items=len(snapshot.items))
        # Only now: a refusal is remembered too, and is not repeated until ACTIVE changes.
        self._seen = seen

    def _load(self, serving: str | None) -> ModelSnapshot | None:
        version = artefact.active_version(self._models_dir)
        if version is None or version == serving:
            return None
        try:
            snapshot = artefact.load(self._models_dir / version)
            warm(snapshot)
        except ModelError:
            raise
        except Exception as error:
            # Whatever a damaged model does to us, the old one has to go on serving.
            raise ModelRefused(f"{version}: {error!r}") from error
        return snapshot


def warm(snapshot: ModelSnapshot) -> None:
    """Answer some requests in private: computes what is computed once, and touches the mapped pages.

    Raises:
        ModelRefused: an answer is not one that we would give.
    """
    n_users = len(snapshot.users)
    for user_row in np.linspace(0, n_users - 1, min(_WARM_USERS, n_users), dtype=int).tolist():
        (ranking,) = scoring.personal(snapshot, [scoring.Wanted(user_row, 10)])
        if not np.isfinite(ranking.scores).all() or np.isin(ranking.rows, snapshot.seen_rows(user_row)).any():
            raise ModelRefused(
                f"{snapshot.version}: user row {user_row} gets scores that are not finite or items already seen"
            )
    scoring.popular(snapshot, 10)
    if len(snapshot.items):
        scoring.similar(snapshot, 0, 10)
