"""Follows `models/ACTIVE`: loads, checks and warms an activated model off the event loop, then swaps it in.

Invariants:

- The store gets only models that passed every check and computed lists. A bad model leaves the served one in place, is
  logged once, and is tried again when ACTIVE changes, or after a pause if the disk failed or nothing is served.
- The event loop's thread makes no file system call. A check that hangs is abandoned with its thread and another one
  begins; the number of such threads is bounded.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeAlias

import structlog

from service.catalogue.served_model import ServedModel
from service.errors import ModelError, ModelMissing
from service.metrics import Metrics
from service.models.files import active_model
from service.models.roles import Role
from service.models.snapshot import ModelSnapshot
from service.serving.model.check import FileVersion, ModelCheck
from service.serving.model.store import ModelStore
from telemetry.daemon_thread import run_in_daemon_thread

_log = structlog.get_logger("recollect.watcher")
# The model store counts as unreadable after this time without progress.
_UNRESPONSIVE_AFTER_S: Final = 2.0
_POLL_S: Final = 0.1
# Abandoned threads that may hang at once; no check begins while there are as many.
_MAX_ABANDONED: Final = 3
# The pause before a refused model is tried again doubles from this.
_FIRST_PAUSE_S: Final = 0.5

_Checked: TypeAlias = ServedModel | None


class Watcher:
    """Keeps one store at the active version.

    `timeout_s` bounds one check, loading included, and `max_pause_s` the pause before a refused model is tried again.
    `builder` returns what adds the item catalogue to a loaded model. A `role` may have an active version of its own.
    `before_swap` is awaited with a checked model before it is swapped in.
    """

    def __init__(
        self,
        models_dir: Path,
        store: ModelStore,
        interval_s: float,
        metrics: Metrics,
        *,
        timeout_s: float = 60.0,
        max_pause_s: float = 30.0,
        builder: Callable[[], Callable[[ModelSnapshot], ServedModel]] = lambda: ServedModel,
        role: Role = "all",
        before_swap: Callable[[ModelSnapshot], Awaitable[None]] | None = None,
    ) -> None:
        self._before_swap = before_swap
        self._role: Role = role
        self._builder = builder
        self._models_dir = models_dir
        self._store = store
        self._interval_s = interval_s
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._max_pause_s = max_pause_s
        # ACTIVE as it was last handled, and when to handle the same file again.
        self._handled: FileVersion | None = None
        self._retry_at_s: float | None = None
        self._pause_s = _FIRST_PAUSE_S
        # Sentences; empty without a problem.
        self._store_problem = f"The model store {models_dir} has not answered yet."
        self._version_problem = ""
        self._disk_failed = False
        self._abandoned: set[asyncio.Future[_Checked]] = set()
        self._checked = asyncio.Event()
        self.readable = True
        """False while the model store cannot be read; the last good model stays served."""

    @property
    def problem(self) -> str:
        """The reason why no newer version is served, as a sentence; empty without a problem."""
        return self._store_problem or self._version_problem

    async def run(self) -> None:
        """Follow ACTIVE until cancelled."""
        while True:
            await self.check()
            self._checked.set()
            await asyncio.sleep(self._interval_s)

    async def wait_for_first_check(self, timeout_s: float) -> None:
        """Wait until `run` has checked once, or the time is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._checked.wait()

    async def check(self) -> None:
        """Check ACTIVE once, and swap if another version was activated; returns within `timeout_s`."""
        self._abandoned = {outcome for outcome in self._abandoned if not outcome.done()}
        if len(self._abandoned) >= _MAX_ABANDONED:
            self._mark_unresponsive()
            return
        is_retry = self._retry_at_s is not None and time.monotonic() >= self._retry_at_s
        check = ModelCheck(
            self._models_dir, self._store.version, None if is_retry else self._handled, self._builder(), self._role
        )
        outcome = asyncio.ensure_future(run_in_daemon_thread(check.run, "model-loader"))
        try:
            await self._wait(check, outcome)
        finally:
            check.abandon()
            # A late error is dropped; unretrieved, asyncio would log it.
            outcome.add_done_callback(lambda late: late.cancelled() or late.exception())
        if outcome.done():
            if self._before_swap is not None and outcome.exception() is None and (checked := outcome.result()):
                await self._before_swap(checked.model)
            self._apply(check, outcome)
        else:
            self._abandoned.add(outcome)
            self._disk_failed = True
            self._mark_unresponsive()
            self._refuse(check.found, f"{check.subject} was not read within {self._timeout_s:g} s.", retry=True)

    async def _wait(self, check: ModelCheck, outcome: asyncio.Future[_Checked]) -> None:
        until_s = time.monotonic() + self._timeout_s
        while not outcome.done() and (left_s := until_s - time.monotonic()) > 0:
            await asyncio.wait([outcome], timeout=min(_POLL_S, left_s))
            if not outcome.done() and time.monotonic() - check.progressed_s > _UNRESPONSIVE_AFTER_S:
                self._mark_unresponsive()

    def _apply(self, check: ModelCheck, outcome: asyncio.Future[_Checked]) -> None:
        try:
            checked = outcome.result()
        except FileNotFoundError:
            # Nothing was activated yet, which is a fault only of a store that had a model.
            self.readable = self._store.version is None
            self._store_problem = f"No model is active in {self._models_dir}; train one, or activate a published one."
            return
        except OSError as error:
            self.readable = False
            path = error.filename or self._models_dir / active_model.ACTIVE
            self._store_problem = f"{path} cannot be read: {error.strerror or error}."
            return
        except ModelError as error:
            self._store_problem, self._disk_failed = "", isinstance(error.__cause__, OSError)
            self.readable = not self._disk_failed
            retry = self._disk_failed or isinstance(error, ModelMissing) or self._store.version is None
            self._refuse(check.found, str(error), retry=retry)
            return
        self._store_problem = ""
        self.readable = not self._disk_failed
        if not check.changed:
            return
        self._handled, self._retry_at_s, self._pause_s = check.found, None, _FIRST_PAUSE_S
        self._version_problem, self._disk_failed, self.readable = "", False, True
        if checked is not None:
            snapshot = checked.model
            self._store.swap(snapshot, checked)
            self._metrics.count_swap(snapshot)
            _log.info("model swapped in", version=snapshot.version, items=len(snapshot.items))

    def _mark_unresponsive(self) -> None:
        self.readable = False
        self._store_problem = f"The model store {self._models_dir} does not answer."

    def _refuse(self, found: FileVersion | None, reason: str, *, retry: bool) -> None:
        is_new = (found, reason) != (self._handled, self._version_problem)
        self._handled, self._version_problem = found, reason
        self._retry_at_s = time.monotonic() + self._pause_s if retry else None
        self._pause_s = min(2 * self._pause_s, self._max_pause_s)
        if is_new:
            self._metrics.model_refusals.inc()
            _log.error("model refused", reason=reason, serving=self._store.version)
