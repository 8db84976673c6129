"""Progress of long work on standard error: a bar on a terminal, elsewhere a plain line every few seconds."""

import sys
import time
from typing import TYPE_CHECKING, Final, Self

from ops.console.terminal import console

# rich is loaded only where there is a bar to draw.
if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_LINE_EVERY_S: Final = 5.0


class StageProgress:
    """A callable that takes `(stage, done, total)`, and a context that removes the bar at its end."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._stage = ""
        self._printed_s = 0.0

    def __enter__(self) -> Self:
        """Start the bar, if standard error is a terminal."""
        if sys.stderr.isatty():
            from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

            columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
            self._bar = Progress(*columns, console=console(stderr=True), transient=True)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show that `done` of `total` of a stage is done; a new name begins a new stage."""
        is_new, self._stage = stage != self._stage, stage
        if self._bar is not None:
            if self._task is None or is_new:
                if self._task is not None:
                    self._bar.remove_task(self._task)
                self._task = self._bar.add_task(stage, total=total)
            self._bar.update(self._task, completed=done)
            return
        now_s = time.monotonic()
        if is_new or done >= total or now_s - self._printed_s >= _LINE_EVERY_S:
            self._printed_s = now_s
            print(f"{stage}: {100 * done // total if total else 100} %", file=sys.stderr, flush=True)
