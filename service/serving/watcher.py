"""Follows `models/ACTIVE`: loads, checks and warms a newly activated model off the event loop, then swaps it in.

Invariants:

- The store only ever gets a model that passed every check and has answered requests of its own; a bad one leaves the
  old one serving, is reported once, and is tried again only when ACTIVE is written again, or when waiting may help: the
  disk was at fault, or there is nothing to serve.
- No file system call is made in the event loop's thread. A look that does not come back is given up after a time, its
  thread is left to itself, and another look begins; of such threads there are few at any time.
"""

import asyncio
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np
import structlog

from service.errors import ModelError, ModelMissing, ModelRefused
from service.metrics import Metrics
from service.models import active_model, artefact, scoring
from service.models.snapshot import ModelSnapshot
from service.serving.store import ModelStore
from telemetry.daemon_thread import run_in_daemon_thread

_log = structlog.get_logger("recollect.watcher")
_WARM_USERS = 32
# So long without a sign of a look, and the model store counts as away.
_SILENT_S: Final = 2.0
_ASK_EVERY_S: Final = 0.1
# Threads that a hung store may hold; no look begins while there are as many.
_MOST_STUCK: Final = 3
# After a refusal that may pass by itself: doubled each time, up to the last.
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.5, 30.0

Seen = tuple[int, int]


class Watcher:
    """Keeps one store at the active version.

    Args:
        models_dir: Where models are published.
        store: What to keep current.
        interval_s: Seconds between two looks.
        metrics: Told about every swap and refusal.
        timeout_s: How long one look may take, loading included.
    """

    def __init__(
        self, models_dir: Path, store: ModelStore, interval_s: float, metrics: Metrics, *, timeout_s: float = 60.0
    ) -> None:
        self._models_dir = models_dir
        self._store = store
        self._interval_s = interval_s
        self._metrics = metrics
        self._timeout_s = timeout_s
        # What ACTIVE was when it was last dealt with, and when to deal with the same again.
        self._seen: Seen | None = None
        self._again_at_s: float | None = None
        self._pause_s = _FIRST_PAUSE_S
        # What is wrong with the store, and with what ACTIVE names; empty where nothing is.
        self._fault = f"the model store {models_dir} has not answered yet"
        self._refusal = ""
        self._disk_failed = False
        self._stuck: set[asyncio.Future[ModelSnapshot | None]] = set()
        self._looked = asyncio.Event()
        self.readable = True
        """False while the model store cannot be read; the last good model goes on serving."""

    @property
    def trouble(self) -> str:
        """Why nothing newer is served, in words; empty while all is well."""
        return self._fault or self._refusal

    async def run(self) -> None:
        """Follow ACTIVE until cancelled."""
        while True:
            await self.look()
            self._looked.set()
            await asyncio.sleep(self._interval_s)

    async def looked(self, timeout_s: float) -> None:
        """Wait until `run` has looked once, or the time is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._looked.wait()

    async def look(self) -> None:
        """Look once, and swap if another version was activated; ends after `timeout_s` at the latest."""
        self._stuck = {ended for ended in self._stuck if not ended.done()}
        if len(self._stuck) >= _MOST_STUCK:
            self._silent()
            return
        due = self._again_at_s is not None and time.monotonic() >= self._again_at_s
        look = _Look(self._models_dir, self._store.version, None if due else self._seen)
        ended = asyncio.ensure_future(run_in_daemon_thread(look.run, "model-loader"))
        try:
            await self._wait(look, ended)
        finally:
            look.give_up()
            # What comes too late is dropped, its errors too.
            ended.add_done_callback(_retrieve)
        if ended.done():
            self._take(look, ended)
        else:
            self._stuck.add(ended)
            self._disk_failed = True
            self._silent()
            self._refuse(look.seen, f"{look.what} was not read within {self._timeout_s:g} s", again=True)

    async def _wait(self, look: "_Look", ended: asyncio.Future[ModelSnapshot | None]) -> None:
        until_s = time.monotonic() + self._timeout_s
        while not ended.done() and (left_s := until_s - time.monotonic()) > 0:
            await asyncio.wait([ended], timeout=min(_ASK_EVERY_S, left_s))
            if not ended.done() and time.monotonic() - look.moved_s > _SILENT_S:
                self._silent()

    def _take(self, look: "_Look", ended: asyncio.Future[ModelSnapshot | None]) -> None:
        try:
            snapshot = ended.result()
        except FileNotFoundError:
            # Nothing was ever activated, which is no fault until there is something to serve.
            self.readable = self._store.version is None
            self._fault = f"nothing is active in {self._models_dir}; train a model, or activate one that is there"
            return
        except OSError as error:
            self.readable = False
            self._fault = f"{self._models_dir / active_model.ACTIVE} cannot be read: {error.strerror or error}"
            return
        except ModelError as error:
            self._fault, self._disk_failed = "", isinstance(error.__cause__, OSError)
            self.readable = not self._disk_failed
            missing = isinstance(error, ModelMissing)
            self._refuse(look.seen, str(error), again=self._disk_failed or missing or self._store.version is None)
            return
        self._fault = ""
        self.readable = not self._disk_failed
        if not look.changed:
            return
        self._seen, self._again_at_s, self._pause_s = look.seen, None, _FIRST_PAUSE_S
        self._refusal, self._disk_failed, self.readable = "", False, True
        if snapshot is not None:
            self._store.swap(snapshot)
            self._metrics.swapped(snapshot)
            _log.info("model swapped in", version=snapshot.version, items=len(snapshot.items))

    def _silent(self) -> None:
        self.readable = False
        self._fault = f"the model store {self._models_dir} does not answer"

    def _refuse(self, seen: Seen | None, reason: str, *, again: bool) -> None:
        new = (seen, reason) != (self._seen, self._refusal)
        # Only now: a refusal is remembered too, and is not repeated until ACTIVE changes or it is time.
        self._seen, self._refusal = seen, reason
        self._again_at_s = time.monotonic() + self._pause_s if again else None
        self._pause_s = min(2 * self._pause_s, _LAST_PAUSE_S)
        if new:
            self._metrics.model_refusals.inc()
            _log.error("model refused", reason=reason, serving=self._store.version)


class _Look:
    """One look, in a thread of its own that may be given up at any time.

    Args:
        models_dir: Where models are published.
        serving: The served version.
        seen: What ACTIVE was when it was last dealt with; None to deal with it in any case.

    Attributes:
        seen: What ACTIVE is now, once that is known.
        changed: Whether ACTIVE is to be dealt with.
        what: What is being read.
        moved_s: When something was last heard of the file system, on the monotonic clock.
    """

    def __init__(self, models_dir: Path, serving: str | None, seen: Seen | None) -> None:
        self._models_dir = models_dir
        self._serving = serving
        self._dealt_with = seen
        self._given_up = threading.Event()
        self.seen = seen
        self.changed = False
        self.what = f"the model store {models_dir}"
        self.moved_s = time.monotonic()

    def give_up(self) -> None:
        """End the look as soon as its thread comes back from what it waits for."""
        self._given_up.set()

    def run(self) -> ModelSnapshot | None:
        """Return the model to be served from now on, or None where the served one stays; blocks.

        Raises:
            ModelError: What ACTIVE names cannot be served.
            OSError: ACTIVE cannot be looked at.
        """
        status = (self._models_dir / active_model.ACTIVE).lstat()
        # Every activation renames a new file into place, so inode and time tell one from the next.
        self.seen = status.st_ino, status.st_mtime_ns
        self._alive()
        if self.seen == self._dealt_with:
            return None
        self.changed = True
        version = active_model.version(self._models_dir)
        if version is None or version == self._serving:
            return None
        self.what = version
        try:
            snapshot = artefact.load(self._models_dir / version, self._alive)
            warm(snapshot)
        except ModelError:
            raise
        except Exception as error:
            # Whatever a damaged model does to us, the old one has to go on serving.
            raise ModelRefused(f"{version}: {error!r}") from error
        return snapshot

    def _alive(self) -> None:
        self.moved_s = time.monotonic()
        if self._given_up.is_set():
            raise ModelRefused(f"{self.what}: it took too long to read")


def _retrieve(ended: asyncio.Future[ModelSnapshot | None]) -> None:
    # Otherwise asyncio complains of an error that was never retrieved.
    if not ended.cancelled():
        ended.exception()


def warm(snapshot: ModelSnapshot) -> None:
    """Answer some requests in private: computes what is computed once, and touches the mapped pages.

    Raises:
        ModelRefused: An answer is not one that we would give.
    """
    n_users = len(snapshot.users)
    for user_row in np.linspace(0, n_users - 1, min(_WARM_USERS, n_users), dtype=int).tolist():
        (ranking,) = scoring.personal(snapshot, [scoring.TopNRequest(user_row, 10)])
        if not np.isfinite(ranking.scores).all() or np.isin(ranking.rows, snapshot.seen_rows(user_row)).any():
            raise ModelRefused(
                f"{snapshot.version}: user row {user_row} gets scores that are not finite or items already seen"
            )
    scoring.popular(snapshot, 10)
    if len(snapshot.items):
        scoring.similar(snapshot, 0, 10)
